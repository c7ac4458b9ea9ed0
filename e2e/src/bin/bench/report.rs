//! The table of results.

use std::fmt;
use std::time::Duration;

use weir_e2e::sql::Answer;

/// What was measured so far: measure, value, aim.
#[derive(Default)]
pub(crate) struct Report(Answer);

impl Report {
    /// Adds a line.
    pub(crate) fn add(&mut self, measure: &str, value: String, aim: &str) {
        self.0.columns = ["measure", "value", "aim"].map(str::to_owned).to_vec();
        self.0.rows.push([measure.to_owned(), value, aim.to_owned()].map(Some).to_vec());
    }

    /// Adds the median and the longest of several times.
    pub(crate) fn add_times(&mut self, measure: &str, mut times: Vec<Duration>, aim: &str) {
        times.sort_unstable();
        self.add(&format!("{measure}, median, ms"), format!("{:.0}", millis(percentile(&times, 50))), "");
        self.add(&format!("{measure}, longest, ms"), format!("{:.0}", millis(percentile(&times, 100))), aim);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The smallest value that so many percent of the sorted values do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
