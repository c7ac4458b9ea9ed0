//! Waiting for a condition with a deadline.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The bound for what hangs. Whatever works is done long before, also on a machine whose cores others use, so a test that
/// reaches it has found a fault and not a slow moment.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// How often a condition is asked again.
const INTERVAL: Duration = Duration::from_millis(25);

/// Asks until the answer is `Ok(Some(_))` and returns what is in it.
///
/// # Errors
/// When the deadline has passed: an error that tells `what` was waited for and the last error of the condition.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut last = None;
    loop {
        let remaining = deadline.saturating_sub(start.elapsed());
        match tokio::time::timeout(remaining, condition()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
        if start.elapsed() >= deadline {
            match last {
                Some(error) => bail!("waited {deadline:?} for {what}; at last: {error:#}"),
                None => bail!("waited {deadline:?} for {what}"),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Asks until the answer equals `wanted`.
///
/// # Errors
/// When the deadline has passed: an error that tells the last answer.
pub async fn eventually_equal<T: PartialEq + Debug>(
    what: &str,
    deadline: Duration,
    wanted: T,
    mut question: impl AsyncFnMut() -> Result<T>,
) -> Result<()> {
    eventually(what, deadline, async || {
        let answer = question().await?;
        if answer == wanted { Ok(Some(())) } else { bail!("it is {answer:?} and not {wanted:?}") }
    })
    .await
}
