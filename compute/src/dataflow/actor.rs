//! An actor: reads one split of a table, or of a source for all views over it, decodes its messages
//! and sends the rows on. Its task owns the readers and the decoders. Barriers reach it from the
//! node. Blocks and barriers leave it for its own slot, rows of jobs with fragments for edges.
//!
//! An `output` stores the rows of one relation. To the slots it is a writer of its own, whether or
//! not it shares its reading with others. An output that begins behind the others has a `reading`
//! of its own until it has caught up ([`Readings`]). Where acknowledgements delete messages there
//! is nothing to catch up with, so it begins where the others are.
//!
//! A message that cannot be decoded becomes a dead letter of the relation, unless the relation's
//! options say otherwise.
//!
//! Invariant: when the actor delivers the barrier of an epoch for an output at a position, it has
//! sent every row below the position, to whichever slot, and no row at or above it.
//!
//! An actor cannot hold up a checkpoint for ever. It waits for credits only in an epoch whose
//! predecessors it has delivered everywhere. Take an actor in the oldest open epoch: all actors
//! have delivered everything before it, so every slot can seal that, applies this actor's writes,
//! and returns its credits.

mod output;
mod reading;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;
use weir_common::error::chain;
use weir_common::ids::{Epoch, Sequence, TableId};
use weir_common::position::{Anchor, Position};
use weir_common::task::{Group, OnFailure};
use weir_connector_nats::Options;

use output::Output;
pub(crate) use output::{Attachment, Forward};
use reading::{Reading, Said};
use shared::{BadRecordLog, Shared};
pub(crate) use shared::{Config, NotUnderstood};

use super::readings::{History, Moved, Place, ReadingId, Readings};
use crate::control::event::Event;
use crate::ingest::progress::ReadSplit;

/// Barriers and commits waiting for the actor: at most 4 barriers are in flight, each with its
/// commit.
const INBOX_MAX: usize = 16;
/// The interval at which the server is asked whether anything is left for a reading that is behind.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// A message to an actor.
pub(crate) enum Message {
    /// The epoch ends here.
    Barrier(Epoch),
    /// The epoch ends here, and relations that were dropped are stored no further. If there is no
    /// other one, the actor ends too.
    Last(Vec<TableId>, Epoch),
    /// The epoch is committed.
    Committed(Epoch),
    /// Feed a view over the source from here on.
    Attach(Box<Attachment>),
    /// Forward the rows of a relation that the actor stores from here on.
    Forward(Forward),
}

/// An actor's task.
struct Actor {
    shared: Shared,
    inbox: mpsc::Receiver<Message>,
    /// The open epoch.
    epoch: Epoch,
    readings: Readings,
    front: Reading,
    behind: BTreeMap<ReadingId, Reading>,
    /// The splits that it reads, for observers.
    observed: watch::Sender<Vec<ReadSplit>>,
    /// Counts turns, so that several readings take turns in being heard first.
    turn: usize,
    ask: Interval,
    /// A pending question to the server: is anything left for a reading?
    asked: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    /// The epoch of the last barrier, once that was delivered: nothing is read any more.
    last: Option<Epoch>,
}

/// The server's answer for a reading.
struct Answer {
    id: ReadingId,
    /// The position of its reader, and that of the front, when the server was asked.
    handed: Sequence,
    front: Sequence,
    is_through: bool,
}

/// A running actor.
pub(crate) struct Handle {
    pub(crate) inbox: mpsc::Sender<Message>,
    /// The relations that it was told to store, and the jobs that it was told to forward rows to.
    pub(crate) feeds: BTreeSet<TableId>,
    /// The splits that it reads, and handles to ask about them.
    pub(crate) observed: watch::Receiver<Vec<ReadSplit>>,
}

/// Starts an actor in `group` that feeds `outputs`, of which there is at least one, and forwards
/// the rows of some of them.
///
/// # Errors
/// If this version does not understand the stored definition of the relation.
pub(crate) fn spawn(
    config: Config,
    outputs: Vec<Attachment>,
    forwards: Vec<Forward>,
    group: &Group,
) -> Result<Handle, NotUnderstood> {
    let options = Arc::new(Options::parse(&config.stream()?.options)?);
    let position = outputs.iter().map(|output| output.position).max_by_key(|position| position.next);
    let position = position.expect("an actor has an output");
    let stored = outputs.iter().map(|output| output.entry.id());
    let feeds = stored.chain(forwards.iter().map(|forward| forward.job)).collect();
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let mut ask = interval(ASK_INTERVAL);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let epoch = config.epoch.next();
    let shared = Shared { config, options, group: group.clone(), bad_records: BadRecordLog::default() };
    let history = if shared.config.source.is_consumed() { History::Consumed } else { History::Kept };
    let front = Reading::front(&shared, position)?;
    let (observed, observer) = watch::channel(vec![front.observed()]);
    let actor = Actor {
        shared,
        inbox,
        epoch,
        readings: Readings::new(position.next, history),
        front,
        behind: BTreeMap::new(),
        observed,
        turn: 0,
        ask,
        asked: None,
        last: None,
    };
    let Config { usage, source, .. } = &actor.shared.config;
    let clock = usage.clock(source.id(), source.name());
    let task = clock.measure(actor.run((outputs, forwards), group.token().clone()));
    group.spawn("actor", OnFailure::Log, task);
    Ok(Handle { inbox: sender, feeds, observed: observer })
}

/// An event of an actor.
enum Heard {
    Message(Message),
    Reading(Place, Said),
    /// It is time to ask whether a reading that is behind has anything left.
    Ask,
    Answer(Answer),
}

impl Actor {
    async fn run(
        mut self,
        begin: (Vec<Attachment>, Vec<Forward>),
        cancel: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        Box::pin(cancel.run_until_cancelled(self.serve(begin))).await;
        Ok(())
    }

    /// Serves until no relation is left to store, or the slot goes away. The slot itself tells the
    /// node that.
    async fn serve(&mut self, (outputs, forwards): (Vec<Attachment>, Vec<Forward>)) -> () {
        for output in outputs {
            if self.attach(output).await.is_break() {
                return;
            }
        }
        for forward in forwards {
            if self.forward(forward).await.is_break() {
                return;
            }
        }
        loop {
            let heard = self.hear().await;
            if self.take(heard).await.is_break() {
                return;
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        let (reads, behind) = (self.last.is_none(), !self.behind.is_empty());
        tokio::select! {
            biased;
            Some(message) = self.inbox.recv() => Heard::Message(message),
            answer = async { self.asked.as_mut().expect("something is asked").await }, if self.asked.is_some() => {
                self.asked = None;
                Heard::Answer(answer)
            }
            _ = self.ask.tick(), if behind && self.asked.is_none() => Heard::Ask,
            (place, said) = said(&mut self.front, &mut self.behind, &mut self.turn), if reads => {
                Heard::Reading(place, said)
            }
        }
    }

    async fn take(&mut self, heard: Heard) -> ControlFlow<()> {
        match heard {
            Heard::Message(Message::Barrier(epoch)) => self.barrier(epoch).await,
            Heard::Message(Message::Last(jobs, epoch)) => {
                self.barrier(epoch).await?;
                jobs.into_iter().for_each(|job| self.detach(job, epoch));
                ControlFlow::Continue(())
            }
            Heard::Message(Message::Committed(epoch)) => {
                self.front.committed(epoch);
                self.behind.values_mut().for_each(|reading| reading.committed(epoch));
                match self.last {
                    // The reader acknowledges the committed messages and ends; meta removes its
                    // consumer.
                    Some(last) if last <= epoch => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            }
            Heard::Message(Message::Attach(output)) => self.attach(*output).await,
            Heard::Message(Message::Forward(forward)) => self.forward(forward).await,
            Heard::Reading(place, Said::Batch(batch)) => {
                let (end, epoch) = (self.readings.end(place), self.epoch);
                let reading = match place {
                    Place::Front => &mut self.front,
                    Place::Behind(id) => self.behind.get_mut(&id).expect("it was just heard"),
                };
                reading.decode(&batch, end, epoch, &mut self.shared).await?;
                self.moved(place, batch.position).await?;
                self.tell(place);
                ControlFlow::Continue(())
            }
            Heard::Reading(_, Said::CheckpointWanted) => {
                self.shared.tell(Event::CheckpointWanted(self.shared.config.term)).await;
                ControlFlow::Continue(())
            }
            Heard::Reading(place, Said::Failed(error)) => {
                let job = match place {
                    Place::Front => self.shared.config.source.id(),
                    Place::Behind(id) => self.behind[&id].known_as().job,
                };
                self.shared.tell(Event::JobFailed(self.shared.config.term, job, error)).await;
                ControlFlow::Continue(())
            }
            Heard::Ask => {
                self.ask();
                ControlFlow::Continue(())
            }
            Heard::Answer(Answer { id, handed, front, is_through }) => {
                // A batch that came meanwhile may be followed by more.
                match self.behind.get(&id) {
                    Some(reading) if is_through && reading.handed().0 == handed => {
                        self.moved(Place::Behind(id), front).await
                    }
                    _ => ControlFlow::Continue(()),
                }
            }
        }
    }

    async fn barrier(&mut self, epoch: Epoch) -> ControlFlow<()> {
        let Actor { shared, readings, front, behind, .. } = self;
        // Blocks that are closed now belong to the epoch that ends.
        front.barrier(epoch, readings.front(), shared).await?;
        for (id, reading) in behind {
            reading.barrier(epoch, readings.position(Place::Behind(*id)), shared).await?;
        }
        self.epoch = epoch.next();
        ControlFlow::Continue(())
    }

    /// Begins to feed an output.
    async fn attach(&mut self, attachment: Attachment) -> ControlFlow<()> {
        let (position, fed) = (attachment.position, Arc::clone(&attachment.entry.relation));
        let term = &self.shared.config.term;
        let output = match Output::new(attachment, &self.shared.config).await {
            Ok(output) => output,
            Err(error) => {
                self.shared.tell(Event::JobWaits(*term, fed.id, chain(&error))).await;
                return ControlFlow::Break(());
            }
        };
        match self.readings.attach(position.next) {
            Place::Front => {
                // Rows that were read before do not belong to the output.
                self.front.close_block(self.epoch, &self.shared).await?;
                self.front.outputs.push(output);
            }
            Place::Behind(id) => match Reading::behind(&self.shared, self.behind_at(id, position), output) {
                Ok(reading) => {
                    info!(view = %fed.name, position = %position.next, front = %self.readings.front(), "a view begins to catch up");
                    self.behind.insert(id, reading);
                }
                Err(error) => {
                    self.shared.tell(Event::JobFailed(*term, fed.id, chain(&error))).await;
                    return ControlFlow::Break(());
                }
            },
        }
        self.publish();
        ControlFlow::Continue(())
    }

    /// Begins to forward the rows of a relation that it stores.
    async fn forward(&mut self, forward: Forward) -> ControlFlow<()> {
        let Actor { shared, epoch, readings, front, behind, .. } = self;
        let below = forward.below;
        let feeds = |reading: &Reading| reading.outputs.iter().any(|output| output.id() == below);
        let (place, reading) = match behind.iter_mut().find(|(_, reading)| feeds(reading)) {
            Some((id, reading)) => (Place::Behind(*id), reading),
            None => (Place::Front, front),
        };
        // Rows that were read before are stored below the position at which it begins.
        reading.close_block(*epoch, shared).await?;
        let output = reading.outputs.iter_mut().find(|output| output.id() == below);
        let output = output.expect("a relation that the actor stores");
        match output.forward(forward, readings.position(place)).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// The position at which a reading behind the front begins, for an output at `position`. It
    /// must be in the stream that the front reads.
    fn behind_at(&self, id: ReadingId, position: Position) -> Position {
        let next = self.readings.position(Place::Behind(id));
        let front = self.front.anchor();
        match next == position.next {
            true if front.created_ns == 0 => position,
            true => Position { next, anchor: Anchor { created_ns: front.created_ns, ..position.anchor } },
            // It begins with the stream.
            false => Position { next, anchor: Anchor { created_ns: front.created_ns, ..Anchor::default() } },
        }
    }

    /// Stops storing a relation.
    fn detach(&mut self, job: TableId, epoch: Epoch) {
        let readings = std::iter::once(&mut self.front).chain(self.behind.values_mut());
        readings.flat_map(|reading| &mut reading.outputs).for_each(|output| output.stop_forwarding(job));
        self.front.outputs.retain(|output| output.id() != job);
        let of_it = |reading: &Reading| reading.known_as().job == job;
        if let Some(id) = self.behind.iter().find(|(_, reading)| of_it(reading)).map(|(id, _)| *id) {
            self.behind.remove(&id);
            self.readings.detach(id);
        }
        if self.front.outputs.is_empty() && self.behind.is_empty() {
            self.last = Some(epoch);
        }
        self.publish();
    }

    /// A reading has read everything below `position`.
    async fn moved(&mut self, place: Place, position: Sequence) -> ControlFlow<()> {
        let id = match place {
            Place::Front if position.incarnation() > self.readings.front().incarnation() => {
                return self.begin_anew(position).await;
            }
            Place::Front => {
                self.readings.advance(position);
                return ControlFlow::Continue(());
            }
            Place::Behind(id) => id,
        };
        if self.readings.catch_up(id, position) == Moved::Behind {
            return ControlFlow::Continue(());
        }
        let mut reading = self.behind.remove(&id).expect("it has just moved");
        // Its output got the rows read so far from its own reading. The front's open block must not
        // reach it.
        reading.close_block(self.epoch, &self.shared).await?;
        self.front.close_block(self.epoch, &self.shared).await?;
        for output in &reading.outputs {
            info!(view = %output.name(), position = %self.readings.front(), "a view has caught up");
        }
        self.front.outputs.append(&mut reading.outputs);
        self.publish();
        ControlFlow::Continue(())
    }

    /// The front begins with another stream. The rest of the earlier stream is gone for the
    /// readings behind the front, so their outputs begin with the new one too, fed by the front.
    async fn begin_anew(&mut self, position: Sequence) -> ControlFlow<()> {
        self.front.close_block(self.epoch, &self.shared).await?;
        for mut reading in std::mem::take(&mut self.behind).into_values() {
            reading.close_block(self.epoch, &self.shared).await?;
            self.front.outputs.append(&mut reading.outputs);
        }
        self.readings.begin_anew(position);
        self.publish();
        ControlFlow::Continue(())
    }

    /// Asks the server, for one of the readings that are behind, whether it has anything left.
    /// Readings take turns.
    fn ask(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        let place = self.turn.checked_rem(self.behind.len()).unwrap_or_default();
        let Some((id, reading)) = self.behind.iter().nth(place) else { return };
        let (id, front, (handed, control)) = (*id, self.readings.front(), reading.handed());
        let control = control.clone();
        self.asked = Some(Box::pin(async move {
            let is_through = control.is_through(handed).await;
            Answer { id, handed, front, is_through }
        }));
    }

    /// Tells observers how far a reading is, unless it has just joined the front.
    fn tell(&self, place: Place) {
        match place {
            Place::Front => self.front.tell(self.readings.front()),
            Place::Behind(id) => {
                self.behind.get(&id).into_iter().for_each(|reading| reading.tell(self.readings.position(place)));
            }
        }
    }

    fn publish(&self) {
        let readings = std::iter::once(&self.front).chain(self.behind.values());
        self.observed.send_replace(readings.map(Reading::observed).collect());
    }
}

/// Waits for the first reading that has something to say. The readings take turns in being asked
/// first. Cancel safe.
async fn said(front: &mut Reading, behind: &mut BTreeMap<ReadingId, Reading>, turn: &mut usize) -> (Place, Said) {
    if behind.is_empty() {
        return (Place::Front, front.said().await);
    }
    let behind = behind.iter_mut().map(|(id, reading)| (Place::Behind(*id), reading));
    let all = std::iter::once((Place::Front, front)).chain(behind);
    let mut all: Vec<_> = all.map(|(place, reading)| Box::pin(async move { (place, reading.said().await) })).collect();
    *turn = turn.wrapping_add(1);
    let first = *turn % all.len();
    all.rotate_left(first);
    select_all(all).await.0
}
