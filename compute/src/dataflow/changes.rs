//! Carries frames and credits between the fragments of two nodes, over one gRPC stream for each
//! direction and term.
//!
//! The receiving side hands on every message at once and never waits for an actor: credits bound
//! the rows that may be under way over each edge. So an actor that takes nothing for a while holds
//! up its own edges only.
//!
//! If either side ends the stream before the term does, changes may be lost, so the term ends for
//! the sender's node.

use arrow::array::RecordBatch;
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::error::ArrowError;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use weir_common::error::{Kind, chain};
use weir_common::ids::{ActorId, EdgeId, Epoch, FragmentId, TableId, TermId};
use weir_common::rpc;
use weir_proto::carried_message::Message as Carried;
use weir_proto::exchange_client::ExchangeClient;
use weir_proto::{ActorName, CarriedChunk, CarriedCredit, CarriedMessage, EdgeName};
use weir_stream::chunk::Chunk;
use weir_stream::edge::{Credit, Frame, Loan, Weight};

use super::router::{Message, Router};

/// Sends messages until the term ends here or the receiver ends the stream.
///
/// # Errors
/// If the receiver refuses the stream or cannot be reached.
pub(super) async fn send(
    channel: Channel,
    term: TermId,
    messages: mpsc::UnboundedReceiver<(ActorId, Message)>,
) -> Result<(), rpc::Error> {
    let first = CarriedMessage { term: Some(term.into()), ..CarriedMessage::default() };
    let rest = UnboundedReceiverStream::new(messages).map(|(_, message)| to_wire(message));
    let messages = stream::iter([first]).chain(rest);
    ExchangeClient::new(channel).carry(messages).await?;
    Ok(())
}

/// Hands on messages that come from another node until it ends the stream.
///
/// # Errors
/// If a message is malformed.
pub(super) async fn receive(mut incoming: Streaming<CarriedMessage>, router: &Router) -> Result<(), rpc::Error> {
    while let Ok(Some(message)) = incoming.message().await {
        let (to, message) = from_wire(message)?;
        router.send(to, message);
    }
    Ok(())
}

fn malformed(what: impl std::fmt::Display) -> rpc::Error {
    rpc::Error::new(Kind::Internal, format!("changes from another node: {what}"))
}

fn to_wire(message: Message) -> CarriedMessage {
    let (edge, message) = match message {
        Message::Frame(edge, Frame::Chunk { chunk, starved }) => {
            let deletes = chunk.deletes().map(|deletes| deletes.sliced().as_slice().to_vec()).unwrap_or_default();
            let rows = encode(chunk.rows()).expect("a batch in memory can be written");
            let chunk = CarriedChunk { rows: rows.into(), deletes: deletes.into(), starved, weight: chunk.bytes() };
            (edge, Carried::Chunk(chunk))
        }
        Message::Frame(edge, Frame::Barrier(epoch)) => (edge, Carried::Barrier(epoch.0)),
        Message::Frame(edge, Frame::Return(bytes)) => (edge, Carried::Returned(bytes)),
        Message::Credit(edge, Credit { bytes, loan }) => {
            let (loan_bytes, loan_epoch) = loan.map_or((0, 0), |loan| (loan.bytes, loan.epoch.0));
            (edge, Carried::Credit(CarriedCredit { bytes, loan_bytes, loan_epoch }))
        }
        Message::Barrier(_) | Message::Hold(_) | Message::Abandon(_) | Message::Merge(_) => {
            unreachable!("an actor's own node says so")
        }
    };
    CarriedMessage { term: None, edge: Some(edge_name(edge)), message: Some(message) }
}

fn from_wire(message: CarriedMessage) -> Result<(ActorId, Message), rpc::Error> {
    let edge = message.edge.and_then(edge_id).ok_or_else(|| malformed("no edge"))?;
    let message = match message.message.ok_or_else(|| malformed("no content"))? {
        Carried::Chunk(CarriedChunk { rows, deletes, starved, weight }) => {
            let rows = decode(&rows).map_err(|error| malformed(chain(&error)))?;
            let chunk = chunk(rows, &deletes).ok_or_else(|| malformed("not a bit for each row"))?.weighing(weight);
            return Ok((edge.to, Message::Frame(edge, Frame::Chunk { chunk, starved })));
        }
        Carried::Barrier(epoch) => Message::Frame(edge, Frame::Barrier(Epoch(epoch))),
        Carried::Returned(bytes) => Message::Frame(edge, Frame::Return(bytes)),
        Carried::Credit(CarriedCredit { bytes, loan_bytes, loan_epoch }) => {
            let loan = (loan_bytes > 0).then_some(Loan { epoch: Epoch(loan_epoch), bytes: loan_bytes });
            return Ok((edge.from, Message::Credit(edge, Credit { bytes, loan })));
        }
    };
    Ok((edge.to, message))
}

/// Rows with a bit for each, the lowest first, that is set if it is deleted; no bits: none is.
/// `None` if there are more or fewer bits.
pub(crate) fn chunk(rows: RecordBatch, deletes: &[u8]) -> Option<Chunk> {
    match deletes.is_empty() {
        true => Some(Chunk::inserts(rows)),
        false if deletes.len() == rows.num_rows().div_ceil(8) => {
            let deletes = BooleanBuffer::new(Buffer::from(deletes), 0, rows.num_rows());
            Some(Chunk::new(rows, deletes))
        }
        false => None,
    }
}

/// Rows as a stream of the Arrow IPC format.
pub(crate) fn encode(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(rows)?;
    writer.into_inner()
}

/// The rows of such a stream.
pub(crate) fn decode(rows: &[u8]) -> Result<RecordBatch, ArrowError> {
    let mut reader = StreamReader::try_new(rows, None)?;
    reader.next().unwrap_or_else(|| Err(ArrowError::IpcError("no rows".to_owned())))
}

fn edge_name(edge: EdgeId) -> EdgeName {
    let actor = |actor: ActorId| ActorName {
        job: actor.fragment.job.0,
        fragment: actor.fragment.index.into(),
        instance: actor.instance,
    };
    EdgeName { from: Some(actor(edge.from)), to: Some(actor(edge.to)), input: edge.input.into() }
}

fn edge_id(name: EdgeName) -> Option<EdgeId> {
    let actor = |name: ActorName| {
        let fragment = FragmentId { job: TableId(name.job), index: name.fragment.try_into().ok()? };
        Some(ActorId { fragment, instance: name.instance })
    };
    Some(EdgeId { from: actor(name.from?)?, to: actor(name.to?)?, input: name.input.try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn messages_arrive_as_they_left() {
        let actor = |index, instance| ActorId { fragment: FragmentId { job: TableId(7), index }, instance };
        let edge = EdgeId { from: actor(0, 1), to: actor(2, 3), input: 4 };
        let columns: [(&str, ArrayRef); 2] = [
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            ("b", Arc::new(StringArray::from(vec!["x", "", "z"]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
        let changes = Chunk::new(rows.clone(), [false, true, false].into_iter().collect());
        let loan = Some(Loan { epoch: Epoch(9), bytes: 3 });
        let frames = [
            Frame::Chunk { chunk: Chunk::inserts(rows), starved: true },
            Frame::Chunk { chunk: changes, starved: false },
            Frame::Barrier(Epoch(8)),
            Frame::Return(5),
        ];
        for frame in frames {
            let (to, message) = from_wire(to_wire(Message::Frame(edge, frame.clone()))).expect("well formed");
            let Message::Frame(over, arrived) = message else { panic!("a frame") };
            assert_eq!((to, over), (edge.to, edge));
            match (frame, arrived) {
                (Frame::Chunk { chunk: left, starved: a }, Frame::Chunk { chunk: arrived, starved: b }) => {
                    assert_eq!((left.rows(), left.deletes(), a), (arrived.rows(), arrived.deletes(), b));
                    assert_eq!(left.bytes(), arrived.bytes(), "both ends count the same credit");
                }
                (left, arrived) => assert_eq!(left, arrived),
            }
        }
        for credit in [Credit { bytes: 2, loan }, Credit { bytes: 2, loan: None }] {
            let (to, message) = from_wire(to_wire(Message::Credit(edge, credit))).expect("well formed");
            let Message::Credit(over, arrived) = message else { panic!("a credit") };
            assert_eq!((to, over, arrived), (edge.from, edge, credit));
        }
    }
}
