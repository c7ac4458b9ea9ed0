//! Leadership: of all who campaign for a key, at most one holds it.
//!
//! Owns the lease under which the leader's key lives, and the decision when leadership is over. Does not own what a
//! leader does; it has to stop when [`Leadership::lost`] is cancelled.
//!
//! A leader counts its time from when the newest successful keep-alive was *sent*, and stops a sixth of the lease
//! before that runs out: so, as far as clocks run at one speed, it stops before anybody else can lead. What it sent
//! before it stopped may still arrive late. Against that, and against clocks, there is [`Leadership::fence`].
//!
//! In a store that is this process's alone nobody else can lead, so no clock is asked: leadership lasts until it is given up.
//!
//! Invariant: a transaction that carries the fence of a leadership fails once that leadership has ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, debug, info, info_span, warn};
use weir_common::error::{Kind, chain};

use super::{Compare, Error, LeaseId, MetaStore, Txn};

/// How long a leader that vanished still holds the key, if nothing else is configured.
pub const LEASE_TTL: Duration = Duration::from_secs(3);

/// How long leadership lasts in a store that is this process's alone: longer than any process.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// What the leader campaigned with: the address at which it is reached.
    pub value: String,
    /// Names this leadership; never used again.
    pub create_revision: u64,
}

/// The key is ours. Dropping it resigns without waiting.
#[derive(Debug)]
pub struct Leadership {
    /// Names this leadership; never used again.
    pub create_revision: u64,
    /// Cancelled when leadership is over, for whatever reason.
    pub lost: CancellationToken,
    key: String,
    ends: watch::Receiver<Instant>,
    resign: DropGuard,
    keeper: JoinHandle<()>,
}

impl Leadership {
    /// The condition without which a leader must not write.
    pub fn fence(&self) -> Compare {
        Compare::CreateRevision(self.key.clone(), self.create_revision)
    }

    /// Whether leadership lasts. Unlike [`Leadership::lost`] this looks at the clock, so it is right even when the
    /// process was stopped for a while and nobody has run yet to notice.
    pub fn holds(&self) -> bool {
        !self.lost.is_cancelled() && Instant::now() < *self.ends.borrow()
    }

    /// Ends leadership and gives the key back, so that a successor does not have to wait for the lease.
    pub async fn resign(self) {
        let Leadership { resign, keeper, .. } = self;
        drop(resign);
        if let Err(error) = keeper.await {
            warn!(error = chain(&error), "keeper of the leader's lease failed");
        }
    }
}

/// Who holds the key now, if anybody does.
///
/// # Errors
/// If the store fails.
pub async fn leader(store: &dyn MetaStore, key: &str) -> Result<Option<Leader>, Error> {
    let found = store.get(key).await?;
    Ok(found.map(|found| Leader {
        value: String::from_utf8_lossy(&found.value).into_owned(),
        create_revision: found.create_revision,
    }))
}

/// Waits until the key is free and takes it, with `value` in it and a lease of `ttl`. While the store is out of reach
/// it waits for it. None: cancelled before it led; later cancellation has no effect, see [`Leadership::resign`].
///
/// # Errors
/// If the store fails for a reason that does not pass by itself.
pub async fn campaign(
    store: Arc<dyn MetaStore>,
    key: &str,
    value: &str,
    ttl: Duration,
    cancel: &CancellationToken,
) -> Result<Option<Leadership>, Error> {
    let lasts = if store.is_exclusive() { FOR_EVER } else { ttl };
    loop {
        let attempt = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(None),
            attempt = attempt(&*store, key, value, lasts) => attempt,
        };
        match attempt {
            Ok(Some(won)) => return Ok(Some(won.reign(store, key))),
            Ok(None) => debug!(key, "the leader's key is taken"),
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Fenced) => {
                warn!(key, error = chain(&error), "cannot campaign now, trying again");
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(None),
            () = sleep(look_again_after(ttl)) => {}
        }
    }
}

/// A campaign that was won.
struct Won {
    create_revision: u64,
    lease: LeaseId,
    reign: Reign,
}

/// Takes the key if it is free.
async fn attempt(store: &dyn MetaStore, key: &str, value: &str, ttl: Duration) -> Result<Option<Won>, Error> {
    if store.get(key).await?.is_some() {
        return Ok(None);
    }
    let reign = Reign { ttl, renewed: Instant::now() };
    let lease = store.grant_lease(ttl).await?;
    let take = Txn::new().when(Compare::Absent(key.to_owned())).put_leased(key, value.to_owned(), lease);
    let result = store.txn(take).await;
    if let Ok(outcome) = &result
        && outcome.succeeded
    {
        return Ok(Some(Won { create_revision: outcome.revision, lease, reign }));
    }
    // Whether the transaction failed or its outcome is unknown: without the lease the key is not ours. Should this
    // fail too, the lease ends by itself.
    if let Err(error) = store.revoke(lease).await {
        debug!(key, error = chain(&error), "cannot revoke the lease of a lost campaign");
    }
    result.map(|_| None)
}

impl Won {
    /// Starts to keep the lease alive.
    fn reign(self, store: Arc<dyn MetaStore>, key: &str) -> Leadership {
        let Won { create_revision, lease, reign } = self;
        info!(key, create_revision, "leading");
        let (ends_sender, ends) = watch::channel(reign.ends());
        let lost = CancellationToken::new();
        let resign = CancellationToken::new();
        let keeper = Keeper { store, lease, reign, ends: ends_sender, lost: lost.clone(), resign: resign.clone() };
        let span = info_span!("leader lease", key, create_revision);
        Leadership {
            create_revision,
            lost,
            key: key.to_owned(),
            ends,
            resign: resign.drop_guard(),
            // Joined by `resign`; if it panics, its `lost` is cancelled by the guard in `run`.
            keeper: tokio::spawn(keeper.run().instrument(span)),
        }
    }
}

/// Keeps a lease alive until its leader resigns or the lease can no longer be relied on.
struct Keeper {
    store: Arc<dyn MetaStore>,
    lease: LeaseId,
    reign: Reign,
    ends: watch::Sender<Instant>,
    lost: CancellationToken,
    resign: CancellationToken,
}

impl Keeper {
    async fn run(mut self) {
        let lost = self.lost.clone().drop_guard();
        let resign = self.resign.clone();
        let resigned = tokio::select! {
            biased;
            () = resign.cancelled() => true,
            () = self.keep_alive() => false,
        };
        drop(lost);
        if resigned {
            info!("leadership resigned");
        } else {
            warn!("leadership lost");
        }
        // After `lost`: whoever works for this leader is told before another one can lead. Also when leadership was
        // lost, since etcd extends leases when it restarts: nobody has to wait for the end of this one.
        while let Err(error) = self.store.revoke(self.lease).await {
            if !self.store.is_exclusive() {
                info!(error = chain(&error), "cannot give the leader's key back, it ends with its lease");
                break;
            }
            info!(error = chain(&error), "cannot give the leader's key back, trying again");
            sleep(RETRY).await;
        }
    }

    /// Returns when leadership is over.
    async fn keep_alive(&mut self) {
        let mut wait_until = self.reign.renew_at();
        loop {
            let sent = wait_until.max(Instant::now());
            let renewal = async {
                sleep_until(sent).await;
                let sent = Instant::now();
                (sent, self.store.keep_alive(self.lease).await)
            };
            let (sent, answer) = tokio::select! {
                biased;
                () = sleep_until(self.reign.ends()) => return,
                renewed = renewal => renewed,
            };
            match answer {
                Ok(true) => {
                    self.reign.renewed = sent;
                    self.ends.send_replace(self.reign.ends());
                    wait_until = self.reign.renew_at();
                }
                Ok(false) => return,
                Err(error) => {
                    warn!(error = chain(&error), "cannot keep the leader's lease alive, trying again");
                    wait_until = Instant::now() + look_again_after(self.reign.ttl);
                }
            }
        }
    }
}

/// How long leadership lasts, as far as its holder may believe.
#[derive(Clone, Copy, Debug)]
struct Reign {
    ttl: Duration,
    /// When the newest successful grant or keep-alive was sent: the store counts from later.
    renewed: Instant,
}

impl Reign {
    /// When to send the next keep-alive: early enough that a second and third one can follow a failure.
    fn renew_at(&self) -> Instant {
        self.renewed + self.ttl / 3
    }

    /// When leadership is over unless it is renewed.
    fn ends(&self) -> Instant {
        self.renewed + self.ttl * 5 / 6
    }
}

/// The pause before a key is given back once more.
const RETRY: Duration = Duration::from_millis(500);

/// How long to wait before asking the store again: short against the lease, yet no burden.
fn look_again_after(ttl: Duration) -> Duration {
    (ttl / 10).clamp(Duration::from_millis(50), Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_ends_before_the_lease_and_is_renewed_before_it_ends() {
        let reign = Reign { ttl: LEASE_TTL, renewed: Instant::now() };
        assert!(reign.ends() < reign.renewed + reign.ttl);
        assert!(reign.renew_at() + 2 * look_again_after(reign.ttl) < reign.ends());
    }
}
