//! Messages whose subject and payload follow from their number alone, so that what arrived can be compared with what
//! was sent without keeping it.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Messages by number, counted from zero.
pub trait Workload: Send + Sync {
    /// The subject of a message.
    fn subject(&self, number: u64) -> String;
    /// The payload of a message.
    fn payload(&self, number: u64) -> Bytes;
}

/// Numbered events over several subjects: what the crash tests count.
#[derive(Clone, Debug)]
pub struct Events {
    /// What subjects start with.
    pub prefix: String,
    /// How many subjects there are.
    pub subjects: u64,
}

impl Events {
    /// The columns of a table over them.
    pub const COLUMNS: &'static str = "seq bigint, price bigint, note varchar";

    /// Events under `<prefix>.0` to `<prefix>.<subjects - 1>`.
    pub fn new(prefix: &str, subjects: u64) -> Events {
        Events { prefix: prefix.to_owned(), subjects }
    }

    /// The price of an event.
    pub fn price(number: u64) -> u64 {
        scramble(number) % 1_000_000
    }

    /// The key of an event, which it shares with others.
    pub fn key(number: u64) -> u64 {
        scramble(number ^ 0x5A5A) % 5_000
    }

    /// The note of an event: of varying length and with characters that JSON escapes.
    pub fn note(number: u64) -> String {
        let random = scramble(number ^ 0xA5A5);
        let filler = "naïve \"quoted\" \\ tab\t ☃ ".repeat((random % 4) as usize);
        format!("{filler}{random:016x}")
    }
}

impl Workload for Events {
    fn subject(&self, number: u64) -> String {
        format!("{}.{}", self.prefix, scramble(number) % self.subjects)
    }

    fn payload(&self, number: u64) -> Bytes {
        let event = serde_json::json!({
            "seq": number,
            "price": Events::price(number),
            "key": Events::key(number),
            "note": Events::note(number),
        });
        event.to_string().into()
    }
}

/// Bids in the manner of the Nexmark benchmark: 7 fields, 200 bytes, 16 subjects.
#[derive(Clone, Debug)]
pub struct Bids {
    /// What subjects start with.
    pub prefix: String,
}

impl Bids {
    /// The columns of a table over them.
    pub const COLUMNS: &'static str = "auction bigint, bidder bigint, price bigint, channel varchar, url varchar, \
                                       date_time timestamptz, extra varchar";
    /// The size of every payload.
    pub const BYTES: usize = 200;

    /// The names of the channels that a bid has most of the time.
    const CHANNELS: [&'static str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

    /// The payload of a bid for an auction through a channel.
    fn of(number: u64, auction: u64, channel: &str) -> Bytes {
        let random = scramble(number);
        let (bidder, price) = (1_000 + (random >> 20) % 50_000, 100 + (random >> 8) % 10_000_000);
        let (seconds, millis) = (number / 10_000 % 60, number / 10 % 1_000);
        let mut text = format!(
            "{{\"auction\":{auction},\"bidder\":{bidder},\"price\":{price},\"channel\":\"{channel}\",\
             \"url\":\"https://nexmark.test/{:04x}/item.htm?q=1\",\
             \"date_time\":\"2026-01-01T00:{:02}:{seconds:02}.{millis:03}Z\",\"extra\":\"",
            random & 0xFFFF,
            number / 600_000 % 60,
        );
        let filler = format!("{:016x}{:016x}{:016x}", random, scramble(random), scramble(!random));
        let room = Bids::BYTES.saturating_sub(text.len() + 2).min(filler.len());
        text.push_str(&filler[..room]);
        text.push_str("\"}");
        text.into()
    }
}

impl Workload for Bids {
    fn subject(&self, number: u64) -> String {
        format!("{}.{}", self.prefix, number % 16)
    }

    fn payload(&self, number: u64) -> Bytes {
        let random = scramble(number);
        Bids::of(number, 1_000 + random % 100_000, Bids::CHANNELS[(random >> 40) as usize % 4])
    }
}

/// Bids for so many auctions. Half of them come through one of 10,000 channels beside the four, as
/// Nexmark's do.
#[derive(Clone, Debug)]
pub struct Auctions {
    /// The prefix of subjects.
    pub prefix: String,
    /// How many auctions there are.
    pub auctions: u64,
    /// True if few auctions have most of the bids: the auction of rank r has them in the proportion
    /// 1 / r (Zipf's law).
    pub is_skewed: bool,
}

impl Auctions {
    /// The auction of a bid.
    pub fn auction(&self, number: u64) -> u64 {
        let random = scramble(number ^ 0x0A0C);
        if !self.is_skewed {
            return random % self.auctions;
        }
        // The inverse of the distribution function ln(r) / ln(auctions), of 53 uniform bits.
        let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = (self.auctions as f64).powf(uniform) as u64;
        // Auctions of like rank should not be neighbours.
        scramble(rank) % self.auctions
    }
}

impl Workload for Auctions {
    fn subject(&self, number: u64) -> String {
        format!("{}.{}", self.prefix, number % 16)
    }

    fn payload(&self, number: u64) -> Bytes {
        let random = scramble(number);
        let channel = match random >> 40 & 1 {
            0 => Bids::CHANNELS[(random >> 41) as usize % 4].to_owned(),
            _ => format!("channel-{}", (random >> 41) % 10_000),
        };
        Bids::of(number, self.auction(number), &channel)
    }
}

/// Several messages of another workload in each, a line each, all to one subject.
#[derive(Clone, Debug)]
pub struct Together<W> {
    /// What is put together.
    pub rows: W,
    /// How many go into a message.
    pub together: u64,
    /// Where the messages go.
    pub subject: String,
}

impl<W: Workload> Workload for Together<W> {
    fn subject(&self, _: u64) -> String {
        self.subject.clone()
    }

    fn payload(&self, number: u64) -> Bytes {
        let rows = number * self.together..(number + 1) * self.together;
        rows.map(|row| self.rows.payload(row)).collect::<Vec<_>>().join(&b'\n').into()
    }
}

/// Messages of about 30 bytes: what the benchmark's large tables are made of.
#[derive(Clone, Debug)]
pub struct Small;

impl Small {
    /// The columns of a table over them.
    pub const COLUMNS: &'static str = "id bigint, value bigint";
}

impl Workload for Small {
    fn subject(&self, _: u64) -> String {
        "small".to_owned()
    }

    fn payload(&self, number: u64) -> Bytes {
        format!("{{\"id\":{number},\"value\":{}}}", scramble(number) % 1_000_000).into()
    }
}

/// Metrics of live streams, as viewers' players report them: what the demo shows.
#[derive(Clone, Debug)]
pub struct LiveStreamMetrics {
    /// Milliseconds since 1970 of the first report.
    pub start_ms: i64,
}

impl LiveStreamMetrics {
    /// The subject that every report is published to.
    pub const SUBJECT: &'static str = "live_stream_metrics";
    /// The columns of a table over them.
    pub const COLUMNS: &'static str = "client_ip varchar, user_agent varchar, user_id varchar, room_id varchar, \
                                       country varchar, video_bps bigint, video_fps bigint, video_rtt bigint, \
                                       video_lost_pps bigint, video_longest_freeze_duration bigint, \
                                       video_total_freeze_duration bigint, report_timestamp timestamptz";
    /// Reports in a millisecond of their own time.
    const PER_MS: u64 = 2;

    /// The time of a report, in milliseconds since 1970.
    pub fn timestamp_ms(&self, number: u64) -> i64 {
        self.start_ms + (number / LiveStreamMetrics::PER_MS) as i64
    }
}

impl Workload for LiveStreamMetrics {
    fn subject(&self, _: u64) -> String {
        LiveStreamMetrics::SUBJECT.to_owned()
    }

    fn payload(&self, number: u64) -> Bytes {
        const COUNTRIES: [&str; 6] = ["DE", "BR", "US", "IN", "JP", "NG"];
        const FRAMES: [u8; 4] = [24, 25, 30, 60];
        const AGENTS: [&str; 3] = ["Chrome/126 Linux", "Safari/17 iOS", "Firefox/128 Windows"];
        let mut random = StdRng::seed_from_u64(number);
        let country = random.random_range(0..COUNTRIES.len());
        let freeze = if random.random_ratio(1, 20) { random.random_range(100..3_000) } else { 0 };
        let report = serde_json::json!({
            "client_ip": format!("10.{}.{}.{}", country, random.random_range(0..256), random.random_range(1..255)),
            "user_agent": AGENTS[random.random_range(0..AGENTS.len())],
            "user_id": format!("user-{:04}", random.random_range(0..2_000)),
            "room_id": format!("room-{}", random.random_range(1..=8)),
            "country": COUNTRIES[country],
            "video_bps": random.random_range(800_000..6_000_000),
            "video_fps": FRAMES[random.random_range(0..FRAMES.len())],
            "video_rtt": random.random_range(8..120) + 15 * country,
            "video_lost_pps": random.random_range(0..12),
            "video_longest_freeze_duration": freeze,
            "video_total_freeze_duration": freeze + freeze / 2,
            "report_timestamp": DateTime::from_timestamp_millis(self.timestamp_ms(number))
                .map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)),
        });
        report.to_string().into()
    }
}

/// A number that looks random and follows from another (the finalizer of SplitMix64).
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bids_have_their_size_and_fields() {
        let bids = Bids { prefix: "bids".to_owned() };
        for number in [0, 1, 9_999, 600_000, 1_999_999] {
            let payload = bids.payload(number);
            assert_eq!(payload.len(), Bids::BYTES);
            let value: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
            assert_eq!(value.as_object().map(serde_json::Map::len), Some(7));
        }
    }

    #[test]
    fn few_auctions_have_many_bids() {
        let auctions = Auctions { prefix: "a".to_owned(), auctions: 1_000_000, is_skewed: true };
        let seen: std::collections::HashSet<u64> = (0..10_000).map(|number| auctions.auction(number)).collect();
        assert!((4_000..7_000).contains(&seen.len()), "{}", seen.len());
        assert_eq!(auctions.payload(7).len(), Bids::BYTES);
        let even = Auctions { is_skewed: false, ..auctions };
        let seen: std::collections::HashSet<u64> = (0..10_000).map(|number| even.auction(number)).collect();
        assert!(seen.len() > 9_900, "{}", seen.len());
    }

    #[test]
    fn reports_have_their_time() {
        let metrics = LiveStreamMetrics { start_ms: 951_782_400_123 };
        let report: serde_json::Value = serde_json::from_slice(&metrics.payload(3)).expect("JSON");
        assert_eq!(report["report_timestamp"], "2000-02-29T00:00:00.124Z");
    }
}
