//! A clock that counts only the time in which this process ran.
//!
//! A process that was stopped, or got no processor for a while, has not heard from others because
//! it did not listen. Code that judges others by their silence, or lets a promise run out,
//! therefore uses this clock. The clock advances in steps, and a step during which the process
//! stood still is short. Safety must not depend on this clock, nor on any other.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

/// The longest step. The clock must be read more often than this.
const STEP_MAX: Duration = Duration::from_millis(500);
/// The number of steps in a time limit.
const STEPS: u32 = 20;

/// A clock that must be read every half second; otherwise it falls behind.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    read: Instant,
    elapsed: Duration,
}

impl Clock {
    /// Starts a clock at zero.
    pub fn start() -> Clock {
        Clock { read: Instant::now(), elapsed: Duration::ZERO }
    }

    /// Returns the time for which the process ran since the start.
    pub fn elapsed(&mut self) -> Duration {
        self.read_at(Instant::now())
    }

    fn read_at(&mut self, now: Instant) -> Duration {
        self.elapsed += now.saturating_duration_since(self.read).min(STEP_MAX);
        self.read = now;
        self.elapsed
    }
}

/// The time limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

/// Waits for a future up to a limit, which counts only the time in which this process ran.
///
/// # Errors
/// If the future is not ready by then.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    for _ in 0..STEPS {
        // A step that took longer, because nothing ran, counts as one.
        if let Ok(output) = tokio::time::timeout(limit / STEPS, &mut future).await {
            return Ok(output);
        }
    }
    Err(Elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_which_nothing_ran_hardly_counts() {
        let mut clock = Clock::start();
        let start = clock.read;
        assert_eq!(clock.read_at(start + Duration::from_millis(100)), Duration::from_millis(100));
        assert_eq!(clock.read_at(start + Duration::from_millis(300)), Duration::from_millis(300));
        assert_eq!(clock.read_at(start + Duration::from_secs(60)), Duration::from_millis(800));
        assert_eq!(clock.read_at(start + Duration::from_millis(60_100)), Duration::from_millis(900));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_reached_when_it_has_run() {
        assert_eq!(timeout(Duration::from_secs(2), std::future::ready(1)).await, Ok(1));
        let before = tokio::time::Instant::now();
        assert_eq!(timeout(Duration::from_secs(2), std::future::pending::<()>()).await, Err(Elapsed));
        assert!(before.elapsed() >= Duration::from_secs(2));
    }

    #[tokio::test]
    async fn an_answer_that_came_while_nothing_ran_is_heard() {
        let (say, heard) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(timeout(Duration::from_millis(400), heard));
        tokio::task::yield_now().await;
        // The runtime, which has one thread, stands still.
        std::thread::sleep(Duration::from_millis(800));
        tokio::time::sleep(Duration::from_millis(1)).await;
        say.send(()).expect("somebody still waits");
        assert_eq!(waiting.await.expect("no panic"), Ok(Ok(())));
    }
}
