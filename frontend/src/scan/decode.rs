//! A compute node's response to a scan → a record batch, without copying where alignment allows.

use std::collections::HashMap;

use arrow_ipc::reader::read_record_batch;
use arrow_ipc::root_as_message;
use bytes::Bytes;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use weir_common::error::Kind;
use weir_common::rpc;
use weir_proto::ScanResponse;

/// The optional prefix of an encapsulated message, followed by the length of its metadata.
const CONTINUATION: [u8; 4] = [0xff; 4];
const PREFIX_LEN: usize = 8;

/// Decodes a record batch of `schema`.
///
/// # Errors
/// Corrupt, if the message does not match `schema`.
pub(super) fn decode(response: ScanResponse, schema: &SchemaRef) -> Result<RecordBatch, rpc::Error> {
    let rows = usize::try_from(response.rows).map_err(|_| corrupt("more rows than fit into memory"))?;
    if schema.fields().is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        return RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options).map_err(arrow);
    }
    let header = metadata(&response.header);
    let message = root_as_message(header).map_err(|error| corrupt(&error.to_string()))?;
    let batch = message.header_as_record_batch().ok_or_else(|| corrupt("it is not a record batch"))?;
    // The reader slices the body without a check.
    for buffer in batch.buffers().into_iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length()).and_then(|end| usize::try_from(end).ok());
        if buffer.offset() < 0 || buffer.length() < 0 || end.is_none_or(|end| end > response.body.len()) {
            return Err(corrupt("its body is shorter than it says"));
        }
    }
    let body = Buffer::from(response.body);
    let version = message.version();
    let batch = read_record_batch(&body, batch, schema.clone(), &HashMap::new(), None, &version).map_err(arrow)?;
    if batch.num_rows() == rows { Ok(batch) } else { Err(corrupt("it has another number of rows than it says")) }
}

fn metadata(header: &Bytes) -> &[u8] {
    if header.starts_with(&CONTINUATION) && header.len() >= PREFIX_LEN { &header[PREFIX_LEN..] } else { header }
}

fn arrow(error: ArrowError) -> rpc::Error {
    corrupt(&error.to_string())
}

fn corrupt(what: &str) -> rpc::Error {
    rpc::Error::new(Kind::Corrupt, format!("a scanned batch cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
    use datafusion::arrow::array::{Int64Array, StringArray};
    use weir_common::types::SqlType;

    use super::*;

    fn batch() -> RecordBatch {
        let fields = vec![SqlType::BigInt.field("a"), SqlType::Jsonb.field("b")];
        let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(fields));
        let columns: Vec<datafusion::arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec![Some("{}"), Some("ä"), None])),
        ];
        RecordBatch::try_new(schema, columns).expect("columns of one length")
    }

    fn encode(batch: &RecordBatch, compression: Option<CompressionType>) -> ScanResponse {
        let options = IpcWriteOptions::default().try_with_compression(compression).expect("a supported codec");
        let (_, encoded) = IpcDataGenerator::default()
            .encode(batch, &mut DictionaryTracker::new(false), &options, &mut IpcWriteContext::default())
            .expect("plain columns");
        ScanResponse {
            header: encoded.ipc_message.into(),
            body: encoded.arrow_data.into(),
            rows: batch.num_rows() as u64,
            done: false,
        }
    }

    #[test]
    fn what_was_encoded_comes_back() {
        for compression in [None, Some(CompressionType::LZ4_FRAME)] {
            let batch = batch();
            let decoded = decode(encode(&batch, compression), &batch.schema()).expect("a valid message");
            assert_eq!(decoded, batch);
        }
    }

    #[test]
    fn an_empty_projection_carries_only_a_count() {
        let schema: SchemaRef = Arc::new(datafusion::arrow::datatypes::Schema::empty());
        let decoded = decode(ScanResponse { rows: 7, ..Default::default() }, &schema).expect("a count");
        assert_eq!((decoded.num_rows(), decoded.num_columns()), (7, 0));
    }

    #[test]
    fn damage_is_an_error_and_not_a_panic() {
        let batch = batch();
        let good = encode(&batch, None);
        for cut in [0, 1, good.header.len() / 2] {
            let bad = ScanResponse { header: good.header.slice(..cut), ..good.clone() };
            assert_eq!(decode(bad, &batch.schema()).expect_err("damaged").kind, Kind::Corrupt);
        }
        let short = ScanResponse { body: good.body.slice(..8), ..good };
        assert_eq!(decode(short, &batch.schema()).expect_err("damaged").kind, Kind::Corrupt);
    }
}
