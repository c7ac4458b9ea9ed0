//! Conversions between the node's words and the wire.

use bytes::Bytes;
use uuid::Uuid;
use weir_common::catalog::Entry;
use weir_common::error::Kind;
use weir_common::head::SlotState;
use weir_common::ids::{Epoch, JobSplit, Sequence, SlotId, SplitId, StatementId, TableId, TermId, VnodeRange};
use weir_common::position::Position;
use weir_common::rpc;
use weir_proto as proto;
use weir_proto::from_node;

use super::event::Message;
use super::plan::{Barrier, Mutation, Plan, Route, SlotPlan, SourcePlan, SplitPlan, Statement};

fn malformed(what: impl std::fmt::Display) -> rpc::Error {
    rpc::Error::new(Kind::Internal, format!("malformed message of meta: {what}"))
}

pub(crate) fn term(id: Option<proto::TermId>) -> Result<TermId, rpc::Error> {
    id.map(TermId::from).ok_or_else(|| malformed("no term"))
}

fn vnodes(range: Option<proto::VnodeRange>) -> Result<VnodeRange, rpc::Error> {
    range.ok_or_else(|| malformed("no vnodes"))?.try_into()
}

fn entry(bytes: &Bytes) -> Result<Entry, rpc::Error> {
    serde_json::from_slice(bytes).map_err(|error| malformed(format!("table: {error}")))
}

fn source(source: proto::CloneSource) -> Result<SourcePlan, rpc::Error> {
    Ok(SourcePlan {
        path: source.path,
        checkpoint: Uuid::parse_str(&source.checkpoint).map_err(malformed)?,
        vnodes: vnodes(source.vnodes)?,
    })
}

fn split(split: proto::StartSplit) -> SplitPlan {
    SplitPlan {
        split: JobSplit { job: TableId(split.table), split: SplitId(split.split) },
        slot: SlotId(split.slot),
        position: Position { next: Sequence(split.sequence), anchor: split.anchor.into() },
    }
}

pub(crate) fn plan(start: proto::StartTerm) -> Result<Plan, rpc::Error> {
    let slot = |slot: proto::StartSlot| {
        Ok(SlotPlan {
            slot: SlotId(slot.slot),
            vnodes: vnodes(slot.vnodes)?,
            path: slot.path,
            sources: slot.sources.into_iter().map(source).collect::<Result<_, rpc::Error>>()?,
        })
    };
    Ok(Plan {
        term: term(start.term)?,
        epoch: Epoch(start.epoch),
        slots: start.slots.into_iter().map(slot).collect::<Result<_, rpc::Error>>()?,
        catalog: start.tables.iter().map(entry).collect::<Result<_, _>>()?,
        splits: start.splits.into_iter().map(split).collect(),
        routes: start.routes.into_iter().map(route).collect::<Result<_, rpc::Error>>()?,
    })
}

fn route(route: proto::SlotAddress) -> Result<Route, rpc::Error> {
    Ok(Route { slot: SlotId(route.slot), vnodes: vnodes(route.vnodes)?, address: route.address })
}

pub(crate) fn barrier(barrier: proto::Barrier) -> Result<Barrier, rpc::Error> {
    let mutation = match barrier.mutation {
        None => None,
        Some(proto::barrier::Mutation::AddTable(add)) => {
            Some(Mutation::Add(entry(&add.table)?, add.splits.into_iter().map(split).collect()))
        }
        Some(proto::barrier::Mutation::DropTables(drop)) => {
            Some(Mutation::Drop(drop.tables.into_iter().map(TableId).collect()))
        }
        Some(proto::barrier::Mutation::StopJobs(stop)) => {
            Some(Mutation::Stop(entry(&stop.failed)?, stop.jobs.into_iter().map(TableId).collect()))
        }
    };
    Ok(Barrier {
        term: term(barrier.term)?,
        epoch: Epoch(barrier.epoch),
        lowest_pinned: Epoch(barrier.lowest_pinned_epoch),
        mutation,
        trace: barrier.traceparent.into(),
        statements: barrier.statements.into_iter().map(statement).collect(),
    })
}

fn statement(named: proto::NamedStatement) -> Statement {
    let slots = named.slots.into_iter().map(SlotId).collect();
    Statement { id: StatementId(named.id), table: TableId(named.table), slots }
}

/// The committed state and the live databases that a collection of garbage has to keep.
pub(crate) fn reachable(collect: proto::CollectGarbage) -> Result<(Vec<SlotState>, Vec<String>), rpc::Error> {
    let state = |(number, committed)| {
        let SourcePlan { path, checkpoint, vnodes } = source(committed)?;
        Ok(SlotState { slot: SlotId(number), vnodes, path, checkpoint })
    };
    let head = (0..).zip(collect.committed).map(state).collect::<Result<_, rpc::Error>>()?;
    Ok((head, collect.live))
}

pub(crate) fn from_node(message: Message) -> proto::FromNode {
    let message = match message {
        Message::Ready(term) => from_node::Message::TermReady(proto::TermReady { term: Some(term.into()) }),
        Message::Failed(term, error) => {
            from_node::Message::TermFailed(proto::TermFailed { term: Some(term.into()), error })
        }
        Message::WantBarrier(term) => from_node::Message::WantBarrier(proto::WantBarrier { term: Some(term.into()) }),
        Message::JobFailed(term, table, error) => job_failed(term, table, error, false),
        Message::JobWaits(term, table, error) => job_failed(term, table, error, true),
        Message::Report { term, epoch, checkpoints, positions, stopped } => {
            let checkpoint = |(slot, checkpoint): (SlotId, Uuid)| proto::SlotCheckpoint {
                slot: slot.0,
                checkpoint: checkpoint.to_string(),
            };
            let position = |(split, position): (JobSplit, Position)| proto::Position {
                table: split.job.0,
                split: split.split.0,
                sequence: position.next.0,
                anchor: Some(position.anchor.into()),
            };
            from_node::Message::EpochReport(proto::EpochReport {
                term: Some(term.into()),
                epoch: epoch.0,
                slots: checkpoints.into_iter().map(checkpoint).collect(),
                positions: positions.into_iter().map(position).collect(),
                stopped: stopped.into_iter().map(|(job, error)| proto::StoppedJob { table: job.0, error }).collect(),
            })
        }
    };
    proto::FromNode { message: Some(message) }
}

fn job_failed(term: TermId, table: TableId, error: String, waits: bool) -> from_node::Message {
    from_node::Message::JobFailed(proto::JobFailed { term: Some(term.into()), table: table.0, error, waits })
}
