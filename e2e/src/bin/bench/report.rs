//! The table of results.

use std::fmt;
use std::time::Duration;

use weir_e2e::sql::Answer;

/// What was measured so far: measure, value, aim.
#[derive(Default)]
pub(crate) struct Report {
    table: Answer,
    missed: Vec<String>,
}

/// What a value is hoped to be; with a remark on where that comes from.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    /// Nothing in particular.
    None,
    AtLeast(f64),
    AtMost(f64),
    /// Fewer milliseconds than these.
    Under(f64, &'static str),
}

impl Aim {
    fn is_met(self, value: f64) -> bool {
        match self {
            Aim::None => true,
            Aim::AtLeast(bound) => value >= bound,
            Aim::AtMost(bound) => value <= bound,
            Aim::Under(bound, _) => value < bound,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aim::None => Ok(()),
            Aim::AtLeast(bound) => write!(f, "at least {bound:.1}"),
            Aim::AtMost(bound) => write!(f, "at most {bound:.1}"),
            Aim::Under(bound, remark) => write!(f, "under {bound:.0} ms{remark}"),
        }
    }
}

impl Report {
    /// Adds a line, with so many digits behind the point.
    pub(crate) fn add(&mut self, measure: &str, value: f64, digits: usize, aim: Aim) {
        self.table.columns = ["measure", "value", "aim"].map(str::to_owned).to_vec();
        let cells = [measure.to_owned(), format!("{value:.digits$}"), aim.to_string()];
        if !aim.is_met(value) {
            self.missed.push(format!("{measure}: {value:.digits$} and not {aim}"));
        }
        self.table.rows.push(cells.map(Some).to_vec());
    }

    /// Adds the median and the longest of several times.
    pub(crate) fn add_times(&mut self, measure: &str, mut times: Vec<Duration>, aim: Aim) {
        times.sort_unstable();
        self.add(&format!("{measure}, median, ms"), millis(percentile(&times, 50)), 0, Aim::None);
        self.add(&format!("{measure}, longest, ms"), millis(percentile(&times, 100)), 0, aim);
    }

    /// What is not as it was hoped to be.
    pub(crate) fn missed(&self) -> &[String] {
        &self.missed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
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
