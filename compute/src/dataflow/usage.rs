//! The processor time that jobs take on this node, and the rows that they leave out. The time is
//! that for which the tasks of their actors run, by the clocks of the threads.
//!
//! The share of a job is taken over the last seconds, so that a view that has caught up is not
//! shown as busy.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use opentelemetry::KeyValue;
use weir_common::catalog::RelationName;
use weir_common::ids::TableId;
use weir_common::view::Error;

use crate::metrics::{self, Metrics};

/// The time over which shares are taken.
const WINDOW: Duration = Duration::from_secs(10);
/// The least time between two looks at the clocks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The clocks of a node's jobs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    jobs: Arc<Mutex<HashMap<TableId, Job>>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Job {
    clock: Clock,
    left_out: LeftOut,
    labels: [KeyValue; 1],
    /// The clock at some times within the window, the oldest first; never empty.
    seen: VecDeque<(Instant, Duration)>,
}

/// The processor time of one job. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<AtomicI64>);

/// The clock of a job that works within an actor of another one, and the clock of that one.
pub(crate) struct Clocks {
    own: Clock,
    around: Clock,
}

/// The number of rows that a job has left out, and the last reason. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut(Arc<Mutex<(u64, String)>>);

/// A job as it is shown.
pub(crate) struct Used {
    pub(crate) job: TableId,
    /// The share of a processor that it has had lately; 1 is one core.
    pub(crate) cpu: f64,
    /// The rows that it has left out, and the last reason.
    pub(crate) left_out: (u64, String),
}

/// A task whose processor time counts.
pub(crate) struct Measured<F> {
    task: Pin<Box<F>>,
    clock: Clock,
}

impl Usage {
    pub(crate) fn new(metrics: Metrics) -> Usage {
        Usage { jobs: Arc::default(), metrics }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The clock of a job, whose relation has this name.
    pub(crate) fn clock(&self, job: TableId, name: &RelationName) -> Clock {
        self.of_job(job, name, |job| job.clock.clone())
    }

    /// The clocks of a job and of another one, in whose actors it works.
    pub(crate) fn clocks(&self, (job, name): (TableId, &RelationName), around: (TableId, &RelationName)) -> Clocks {
        Clocks { own: self.clock(job, name), around: self.clock(around.0, around.1) }
    }

    /// The rows that a job leaves out.
    pub(crate) fn left_out(&self, job: TableId, name: &RelationName) -> LeftOut {
        self.of_job(job, name, |job| job.left_out.clone())
    }

    fn of_job<T>(&self, job: TableId, name: &RelationName, part: impl FnOnce(&Job) -> T) -> T {
        let made = || {
            let seen = VecDeque::from([(Instant::now(), Duration::ZERO)]);
            Job { clock: Clock::default(), left_out: LeftOut::default(), labels: [metrics::table(name)], seen }
        };
        part(self.jobs().entry(job).or_insert_with(made))
    }

    /// Looks at the clocks, if it is time to, and forgets jobs that have no actor any more.
    pub(crate) fn note(&self, now: Instant) {
        self.jobs().retain(|_, job| {
            let (at, before) = *job.seen.back().expect("it is never empty");
            if now - at < INTERVAL {
                return true;
            }
            let total = job.clock.total();
            self.metrics.job_cpu.add(total.saturating_sub(before).as_secs_f64(), &job.labels);
            job.seen.push_back((now, total));
            while job.seen.len() > 2 && now - job.seen[1].0 >= WINDOW {
                job.seen.pop_front();
            }
            job.clock.is_used()
        });
    }

    /// All jobs.
    pub(crate) fn used(&self, now: Instant) -> Vec<Used> {
        let share = |job: &Job| {
            let (at, before) = *job.seen.front().expect("it is never empty");
            job.clock.total().saturating_sub(before).as_secs_f64()
                / (now - at).as_secs_f64().max(INTERVAL.as_secs_f64())
        };
        let used =
            |(id, job): (&TableId, &Job)| Used { job: *id, cpu: share(job), left_out: job.left_out.lock().clone() };
        self.jobs().iter().map(used).collect()
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<TableId, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// Runs a task by this clock.
    pub(crate) fn measure<F: Future>(&self, task: F) -> Measured<F> {
        Measured { task: Box::pin(task), clock: self.clone() }
    }

    fn add(&self, nanos: i64) {
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }

    /// A task that is being polled may have lent time that it has not got yet.
    fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed).max(0).cast_unsigned())
    }

    /// Returns true while a task runs by it.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Clocks {
    /// Runs `work` by the clock of the job.
    pub(crate) fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = ThreadTime::now();
        let done = work();
        let time = nanos(start.elapsed());
        self.own.add(time);
        self.around.add(-time);
        done
    }
}

impl LeftOut {
    /// Adds rows that were left out for a reason.
    pub(crate) fn add(&self, rows: u64, error: &Error) {
        let mut known = self.lock();
        *known = (known.0 + rows, error.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, (u64, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future> Future for Measured<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let start = ThreadTime::now();
        let polled = self.task.as_mut().poll(context);
        self.clock.add(nanos(start.elapsed()));
        polled
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> RelationName {
        RelationName::public(name)
    }

    #[tokio::test]
    async fn the_time_of_tasks_is_that_of_their_jobs() {
        let usage = Usage::new(Metrics::new(&opentelemetry::global::meter("test")));
        let (busy, idle) = (usage.clock(TableId(1), &name("busy")), usage.clock(TableId(2), &name("idle")));
        let work = async {
            let start = ThreadTime::now();
            while start.elapsed() < Duration::from_millis(20) {
                std::hint::spin_loop();
            }
            tokio::task::yield_now().await;
        };
        busy.measure(work).await;
        let within = usage.clocks((TableId(2), &name("idle")), (TableId(1), &name("busy")));
        busy.measure(async { within.measure(|| ()) }).await;
        assert!(busy.total() >= Duration::from_millis(20) && idle.total() < busy.total());
        usage.left_out(TableId(2), &name("idle")).add(2, &Error::new("no"));
        let mut used = usage.used(Instant::now());
        used.sort_by_key(|used| used.job);
        assert!(used[0].cpu >= 0.02 && used[1].cpu < used[0].cpu);
        assert_eq!([&used[0].left_out, &used[1].left_out], [&(0, String::new()), &(2, "no".to_owned())]);
        drop((idle, within));
        let later = Instant::now() + INTERVAL;
        usage.note(later);
        assert_eq!(usage.used(later).len(), 1, "nobody works for the other any more");
    }
}
