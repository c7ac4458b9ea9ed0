//! Conversions between the coordinator's words and the wire.

use std::collections::BTreeMap;

use uuid::Uuid;
use weir_common::catalog::{Entry, Schema};
use weir_common::error::Kind;
use weir_common::head::SlotState;
use weir_common::ids::{Epoch, JobSplit, NodeId, Sequence, SlotId, SplitId, TableId, TermId};
use weir_common::position::Position;
use weir_common::rpc;
use weir_common::telemetry::trace::TraceParent;
use weir_proto as proto;
use weir_proto::to_node::Message;

use crate::coordinator::event::{Mutation, Report};
use crate::coordinator::placement::{AssignedSplit, Placement, Slot};
use crate::coordinator::statements::Statement;

/// A catalog entry as it travels.
pub(crate) fn entry_bytes(entry: &Entry) -> bytes::Bytes {
    serde_json::to_vec(entry).expect("an entry serialises").into()
}

/// A schema as it travels.
pub(crate) fn schema_bytes(schema: &Schema) -> bytes::Bytes {
    serde_json::to_vec(schema).expect("a schema serialises").into()
}

pub(crate) fn to_node(message: Message) -> proto::ToNode {
    proto::ToNode { message: Some(message) }
}

pub(crate) fn start_term(
    node: &NodeId,
    (term, epoch): (TermId, Epoch),
    placement: &Placement,
    addresses: &BTreeMap<NodeId, String>,
    catalog: &[Entry],
) -> proto::ToNode {
    // A node that is lost meanwhile ends the term before anything is sent to it.
    let address = |node: &NodeId| addresses.get(node).cloned().unwrap_or_default();
    let route = |slot: &Slot| proto::SlotAddress {
        slot: slot.id.0,
        vnodes: Some(slot.vnodes.into()),
        address: address(&slot.node),
    };
    to_node(Message::StartTerm(proto::StartTerm {
        term: Some(term.into()),
        epoch: epoch.0,
        slots: placement.slots_of(node).map(start_slot).collect(),
        tables: catalog.iter().map(entry_bytes).collect(),
        splits: placement.splits.iter().map(start_split).collect(),
        routes: placement.slots.iter().map(route).collect(),
    }))
}

fn start_slot(slot: &Slot) -> proto::StartSlot {
    let source = |source: &crate::coordinator::placement::CloneSource| proto::CloneSource {
        path: source.path.clone(),
        checkpoint: source.checkpoint.to_string(),
        vnodes: Some(source.vnodes.into()),
    };
    proto::StartSlot {
        slot: slot.id.0,
        vnodes: Some(slot.vnodes.into()),
        path: slot.path.clone(),
        sources: slot.sources.iter().map(source).collect(),
    }
}

fn start_split(assigned: &AssignedSplit) -> proto::StartSplit {
    proto::StartSplit {
        table: assigned.split.job.0,
        split: assigned.split.split.0.clone(),
        slot: assigned.slot.0,
        sequence: assigned.position.next.0,
        anchor: Some(assigned.position.anchor.into()),
    }
}

/// A barrier, the same for every node.
pub(crate) fn barrier(
    (term, epoch): (TermId, Epoch),
    lowest_pinned: Epoch,
    mutation: Option<&Mutation>,
    statements: &[Statement],
    trace: TraceParent,
) -> proto::ToNode {
    let mutation = mutation.map(|mutation| match mutation {
        Mutation::Add(entry, splits) => proto::barrier::Mutation::AddTable(proto::AddTable {
            table: entry_bytes(entry),
            splits: splits.iter().map(start_split).collect(),
        }),
        Mutation::Stop(failed, jobs) => proto::barrier::Mutation::StopJobs(proto::StopJobs {
            failed: entry_bytes(failed),
            jobs: jobs.iter().map(|job| job.0).collect(),
        }),
        Mutation::Drop(jobs) => proto::barrier::Mutation::DropTables(proto::DropTablesMutation {
            tables: jobs.iter().map(|job| job.0).collect(),
        }),
    });
    to_node(Message::Barrier(proto::Barrier {
        term: Some(term.into()),
        epoch: epoch.0,
        lowest_pinned_epoch: lowest_pinned.0,
        mutation,
        traceparent: trace.into(),
        statements: statements.iter().map(named).collect(),
    }))
}

pub(crate) fn position(split: &JobSplit, position: &Position) -> proto::Position {
    let (table, split) = (split.job.0, split.split.0.clone());
    proto::Position { table, split, sequence: position.next.0, anchor: Some(position.anchor.into()) }
}

fn named(statement: &Statement) -> proto::NamedStatement {
    let slots = statement.slots.iter().map(|slot| slot.0).collect();
    proto::NamedStatement { id: statement.id.0, table: statement.table.0, slots }
}

pub(crate) fn committed(term: TermId, epoch: Epoch) -> proto::ToNode {
    to_node(Message::Committed(proto::Committed { term: Some(term.into()), epoch: epoch.0 }))
}

pub(crate) fn stop_term(term: TermId) -> proto::ToNode {
    to_node(Message::StopTerm(proto::StopTerm { term: Some(term.into()) }))
}

pub(crate) fn survey(survey: u64, prefix: &str) -> proto::ToNode {
    to_node(Message::Survey(proto::Survey { survey, prefix: prefix.to_owned() }))
}

pub(crate) fn collect_garbage(survey: u64, committed: &[SlotState], live: Vec<String>) -> proto::ToNode {
    let source = |state: &SlotState| proto::CloneSource {
        path: state.path.clone(),
        checkpoint: state.checkpoint.to_string(),
        vnodes: Some(state.vnodes.into()),
    };
    let committed = committed.iter().map(source).collect();
    to_node(Message::CollectGarbage(proto::CollectGarbage { survey, committed, live }))
}

/// A term id, which every message of a node must bear.
pub(crate) fn term(id: Option<proto::TermId>) -> Result<TermId, rpc::Error> {
    id.map(TermId::from).ok_or_else(|| rpc::Error::new(Kind::Internal, "message without a term"))
}

pub(crate) fn report(report: proto::EpochReport) -> Result<Report, rpc::Error> {
    let checkpoint = |slot: proto::SlotCheckpoint| match Uuid::parse_str(&slot.checkpoint) {
        Ok(checkpoint) => Ok((SlotId(slot.slot), checkpoint)),
        Err(error) => Err(rpc::Error::new(Kind::Internal, format!("checkpoint of slot {}: {error}", slot.slot))),
    };
    let position = |position: proto::Position| {
        let split = JobSplit { job: TableId(position.table), split: SplitId(position.split) };
        (split, Position { next: Sequence(position.sequence), anchor: position.anchor.into() })
    };
    Ok(Report {
        term: term(report.term)?,
        epoch: Epoch(report.epoch),
        checkpoints: report.slots.into_iter().map(checkpoint).collect::<Result<_, _>>()?,
        positions: report.positions.into_iter().map(position).collect(),
        stopped: report.stopped.into_iter().map(|stopped| (TableId(stopped.table), stopped.error)).collect(),
    })
}
