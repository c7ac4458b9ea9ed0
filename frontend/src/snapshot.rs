//! The committed epoch that a statement reads, pinned while it runs.
//!
//! This module owns pins: it takes one when a statement starts, renews it while the statement runs,
//! and releases it when the last part of the statement is dropped. Invariant: every scan of a
//! statement uses one snapshot, which was pinned after the statement was received. The statement
//! therefore sees everything that was acknowledged before.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use weir_common::error::Kind;
use weir_common::ids::{Epoch, JobSplit, TableId, TermId};
use weir_common::position::Position;
use weir_sql::error::{Error, sqlstate};

use crate::catalog::{Catalog, CatalogCache};
use crate::meta::{Meta, Pinned, Slot};

/// The interval between renewals of pins, unless a third of a lease is shorter. The frontend also
/// looks for the leader this often.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// The pause before the nodes are asked again where a term has ended. Recovery takes longer than
/// this, but not much.
pub(crate) const TERM_PAUSE: Duration = Duration::from_millis(50);
/// The pause before the committed epoch is requested again, until it has the newest tables.
const CATALOG_PAUSE: Duration = Duration::from_millis(5);
/// The time that the end of the process waits for pins that statements still hold.
const FAREWELL: Duration = Duration::from_secs(1);
/// The minimum interval between renewals, however short a lease is.
const RENEW_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// A term's slots, and the tables that they had when somebody asked.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) term: TermId,
    /// Ordered by their vnodes; together they hold every vnode.
    pub(crate) slots: Vec<Slot>,
    pub(crate) catalog: Arc<Catalog>,
}

/// One committed epoch, the slots that serve it, and its tables.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) term: TermId,
    pub(crate) epoch: Epoch,
    /// Ordered by their vnodes; together they hold every vnode.
    pub(crate) slots: Vec<Slot>,
    pub(crate) catalog: Arc<Catalog>,
    /// The sum of each job's committed positions, as places in the streams.
    places: HashMap<TableId, u64>,
    /// The positions of splits of the streams that were asked for, at the end of the epoch or of an
    /// earlier one.
    pub(crate) positions: HashMap<JobSplit, Position>,
    _lease: Lease,
}

impl Snapshot {
    /// Returns where rows of its tables are written.
    pub(crate) fn placement(&self) -> Arc<Placement> {
        let (slots, catalog) = (self.slots.clone(), Arc::clone(&self.catalog));
        Arc::new(Placement { term: self.term, slots, catalog })
    }

    /// Returns about how many messages a table has read, which is the maximum number of its rows if
    /// each message is one row. `None` if the number is not known.
    pub(crate) fn messages(&self, id: TableId) -> Option<u64> {
        let job = &self.catalog.by_id(id)?.job;
        let starts = job.splits.iter().map(|split| split.sequence.in_stream()).fold(0, u64::saturating_add);
        self.places.get(&job.id).map(|places| places.saturating_sub(starts))
    }
}

#[cfg(test)]
impl Snapshot {
    /// Creates a snapshot of a cluster without nodes.
    pub(crate) fn of_nobody() -> Snapshot {
        let lease = Lease { pins: Arc::default(), pin: 0 };
        let catalog = Arc::default();
        let (slots, places, positions) = (Vec::new(), HashMap::new(), HashMap::new());
        Snapshot { term: TermId::default(), epoch: Epoch(0), slots, catalog, places, positions, _lease: lease }
    }
}

/// Hands out snapshots. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    meta: Arc<Meta>,
    cache: CatalogCache,
    pins: Arc<Pins>,
    /// The placement of the newest snapshot. It may be over, which only its nodes can tell.
    recent: Arc<RwLock<Option<Arc<Placement>>>>,
}

impl Snapshots {
    pub(crate) fn new(meta: Arc<Meta>, cache: CatalogCache) -> Snapshots {
        Snapshots { meta, cache, pins: Arc::default(), recent: Arc::default() }
    }

    /// Pins the newest committed epoch.
    ///
    /// # Errors
    /// Unavailable, if there is no leader until the deadline.
    pub(crate) async fn acquire(&self, deadline: Instant) -> Result<Arc<Snapshot>, Error> {
        self.acquire_after(Vec::new(), deadline).await
    }

    /// Does the same, and asks for the positions of splits of streams.
    ///
    /// # Errors
    /// Unavailable, if there is no leader until the deadline.
    pub(crate) async fn acquire_after(&self, streams: Vec<String>, deadline: Instant) -> Result<Arc<Snapshot>, Error> {
        loop {
            let pinned = self.meta.pin(&streams, deadline).await?;
            let lease = self.pins.hold(&pinned);
            let catalog = self.catalog(pinned.catalog_version, deadline).await?;
            if catalog.version == pinned.catalog_version {
                let Pinned { term, epoch, slots, places, positions, .. } = pinned;
                let snapshot = Arc::new(Snapshot { term, epoch, slots, catalog, places, positions, _lease: lease });
                self.note(&snapshot);
                return Ok(snapshot);
            }
            // A newer catalog may name tables that the pinned epoch lacks. A table was created in
            // between, so pin again.
            if Instant::now() + CATALOG_PAUSE >= deadline {
                let message = format!(
                    "the catalog is at version {}, the committed epoch at {}",
                    catalog.version, pinned.catalog_version
                );
                return Err(Error::new(Kind::Unavailable, sqlstate::CANNOT_CONNECT_NOW, message)
                    .with_hint("the cluster may be recovering; try again"));
            }
            drop(lease);
            sleep(CATALOG_PAUSE).await;
        }
    }

    /// Returns the placement of the newest snapshot, without asking anybody.
    pub(crate) fn recent(&self) -> Option<Arc<Placement>> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, snapshot: &Snapshot) {
        let is_known =
            |known: &Arc<Placement>| known.term == snapshot.term && known.catalog.version == snapshot.catalog.version;
        if !self.recent().as_ref().is_some_and(is_known) {
            *self.recent.write().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.placement());
        }
    }

    /// Returns the catalog of a version, or the present one if it has changed since.
    async fn catalog(&self, version: u64, deadline: Instant) -> Result<Arc<Catalog>, Error> {
        let newest = self.cache.newest();
        if newest.version == version {
            return Ok(newest);
        }
        Ok(self.cache.offer(&newest, self.meta.catalog(deadline).await?))
    }

    /// Renews and releases pins until cancelled, then releases the rest.
    pub(crate) async fn keep(&self, cancel: CancellationToken) {
        let mut period = RENEW_INTERVAL;
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                // Ahead of releases: if statements end all the time, there is always another
                // release.
                _ = tick.tick() => {
                    let (held, wanted) = self.pins.due();
                    if let Err(error) = self.meta.renew_pins(held).await {
                        debug!(error = error.message, "pins are not renewed");
                    }
                    if wanted != period {
                        period = wanted;
                        tick.reset_after(period);
                        tick = interval(period);
                        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                }
                () = self.pins.dropped.notified() => self.release().await,
            }
        }
        // The tasks of statements that were ended drop their parts at different times.
        let last = async {
            loop {
                self.release().await;
                if self.pins.lock().held.is_empty() {
                    break;
                }
                self.pins.dropped.notified().await;
            }
        };
        if timeout(FAREWELL, last).await.is_err() {
            debug!("pins of statements that do not end are left to run out");
        }
        self.release().await;
    }

    async fn release(&self) {
        let released = mem::take(&mut self.pins.lock().released);
        if released.is_empty() {
            return;
        }
        if let Err(error) = self.meta.release_pins(released).await {
            debug!(error = error.message, "pins are left to run out");
        }
    }
}

/// The pins of this process. Their number is bounded by the number of running statements.
#[derive(Debug, Default)]
struct Pins {
    state: Mutex<PinsState>,
    dropped: Notify,
}

#[derive(Debug, Default)]
struct PinsState {
    held: HashSet<u64>,
    released: Vec<u64>,
    lease: Option<Duration>,
}

impl Pins {
    fn lock(&self) -> MutexGuard<'_, PinsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(self: &Arc<Self>, pinned: &Pinned) -> Lease {
        let mut state = self.lock();
        state.held.insert(pinned.pin);
        state.lease = Some(pinned.lease);
        Lease { pins: Arc::clone(self), pin: pinned.pin }
    }

    /// Returns the pins to renew, and the interval of renewals.
    fn due(&self) -> (Vec<u64>, Duration) {
        let state = self.lock();
        let period = state.lease.map_or(RENEW_INTERVAL, |lease| lease / 3).clamp(RENEW_INTERVAL_MIN, RENEW_INTERVAL);
        (state.held.iter().copied().collect(), period)
    }
}

/// A pin in use; dropping it releases the pin.
#[derive(Debug)]
struct Lease {
    pins: Arc<Pins>,
    pin: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pins.lock();
        state.held.remove(&self.pin);
        state.released.push(self.pin);
        drop(state);
        self.pins.dropped.notify_one();
    }
}
