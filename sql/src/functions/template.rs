//! Splits PostgreSQL's templates of dates and times, such as `YYYY-MM-DD HH24:MI:SS.MS`, into
//! patterns and literal text.
//!
//! Both printing ([`super::to_char`]) and reading ([`super::from_char`]) use this. As in
//! PostgreSQL, everything that is not a pattern is literal text, so no template is invalid.

/// The meaning of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// `AD`, `BC`; `A.D.`, `B.C.` with `dots`.
    Era {
        dots: bool,
    },
    /// `AM`, `PM`; `A.M.`, `P.M.` with `dots`.
    Meridiem {
        dots: bool,
    },
    Century,
    DayName,
    DayShort,
    DayOfYear,
    DayOfMonth,
    DayOfWeek,
    IsoDayOfYear,
    IsoDayOfWeek,
    /// `FF1` to `FF6`: the number of digits of a second's fraction.
    Fraction(u32),
    /// `FX`: the text must match the template exactly.
    Exact,
    Hour24,
    Hour12,
    IsoWeek,
    /// The number of last digits.
    IsoYear(u32),
    Julian,
    Minute,
    Month,
    MonthName,
    MonthShort,
    MonthRoman,
    Millisecond,
    Microsecond,
    /// `OF`: hours and minutes from UTC.
    Offset,
    Quarter,
    SecondOfDay,
    Second,
    ZoneHour,
    ZoneMinute,
    Zone,
    WeekOfYear,
    WeekOfMonth,
    /// `Y,YYY`.
    YearWithComma,
    /// The number of last digits.
    Year(u32),
}

/// The case of a pattern's letters, which is also the case of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    Upper,
    Capital,
    Lower,
}

/// All patterns. Where one is a prefix of another, the longer one comes first.
const PATTERNS: &[(&str, Key)] = &[
    ("A.D.", Key::Era { dots: true }),
    ("A.M.", Key::Meridiem { dots: true }),
    ("AD", Key::Era { dots: false }),
    ("AM", Key::Meridiem { dots: false }),
    ("B.C.", Key::Era { dots: true }),
    ("BC", Key::Era { dots: false }),
    ("CC", Key::Century),
    ("DAY", Key::DayName),
    ("DDD", Key::DayOfYear),
    ("DD", Key::DayOfMonth),
    ("DY", Key::DayShort),
    ("D", Key::DayOfWeek),
    ("FF1", Key::Fraction(1)),
    ("FF2", Key::Fraction(2)),
    ("FF3", Key::Fraction(3)),
    ("FF4", Key::Fraction(4)),
    ("FF5", Key::Fraction(5)),
    ("FF6", Key::Fraction(6)),
    ("FX", Key::Exact),
    ("HH24", Key::Hour24),
    ("HH12", Key::Hour12),
    ("HH", Key::Hour12),
    ("IDDD", Key::IsoDayOfYear),
    ("ID", Key::IsoDayOfWeek),
    ("IW", Key::IsoWeek),
    ("IYYY", Key::IsoYear(4)),
    ("IYY", Key::IsoYear(3)),
    ("IY", Key::IsoYear(2)),
    ("I", Key::IsoYear(1)),
    ("J", Key::Julian),
    ("MI", Key::Minute),
    ("MM", Key::Month),
    ("MONTH", Key::MonthName),
    ("MON", Key::MonthShort),
    ("MS", Key::Millisecond),
    ("OF", Key::Offset),
    ("P.M.", Key::Meridiem { dots: true }),
    ("PM", Key::Meridiem { dots: false }),
    ("Q", Key::Quarter),
    ("RM", Key::MonthRoman),
    ("SSSSS", Key::SecondOfDay),
    ("SSSS", Key::SecondOfDay),
    ("SS", Key::Second),
    ("TZH", Key::ZoneHour),
    ("TZM", Key::ZoneMinute),
    ("TZ", Key::Zone),
    ("US", Key::Microsecond),
    ("WW", Key::WeekOfYear),
    ("W", Key::WeekOfMonth),
    ("Y,YYY", Key::YearWithComma),
    ("YYYY", Key::Year(4)),
    ("YYY", Key::Year(3)),
    ("YY", Key::Year(2)),
    ("Y", Key::Year(1)),
];

/// A pattern, with its modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) key: Key,
    /// The pattern as written, in upper case.
    pub(super) name: &'static str,
    pub(super) letters: Letters,
    /// True after `FM` or `TM`: the output is not padded.
    pub(super) fill_mode: bool,
    /// The case of a `TH` or `th` after the pattern.
    pub(super) ordinal: Option<Letters>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Pattern(Pattern),
    /// A character outside quotes that is neither a letter nor a digit.
    Separator(char),
    /// Any other character.
    Literal(char),
}

/// Splits a template into its parts.
pub(super) fn parse(template: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let prefixed = ["FM", "fm", "TM", "tm"].iter().find_map(|prefix| rest.strip_prefix(prefix));
        let fill_mode = prefixed.is_some();
        rest = prefixed.unwrap_or(rest);
        if let Some((name, key, letters)) = pattern_of(rest) {
            rest = &rest[name.len()..];
            let ordinal = match rest.as_bytes() {
                [b'T', b'H', ..] => Some(Letters::Upper),
                [b't', b'h', ..] => Some(Letters::Lower),
                _ => None,
            };
            rest = if ordinal.is_some() { &rest[2..] } else { rest };
            nodes.push(Node::Pattern(Pattern { key, name, letters, fill_mode, ordinal }));
        } else if let Some(quoted) = rest.strip_prefix('"') {
            rest = quote(quoted, &mut nodes);
        } else {
            // A backslash is special only before a double quote.
            rest = rest.strip_prefix('\\').filter(|escaped| escaped.starts_with('"')).unwrap_or(rest);
            let mut characters = rest.chars();
            nodes.extend(characters.next().map(|character| match character {
                ' '..='~' if !character.is_ascii_alphanumeric() => Node::Separator(character),
                _ => Node::Literal(character),
            }));
            rest = characters.as_str();
        }
    }
    nodes
}

fn pattern_of(text: &str) -> Option<(&'static str, Key, Letters)> {
    PATTERNS.iter().find_map(|(name, key)| {
        let written = text.get(..name.len()).filter(|written| written.eq_ignore_ascii_case(name))?;
        let is_upper = |text: &str| !text.bytes().any(|byte| byte.is_ascii_lowercase());
        let is_lower = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let has_name = matches!(key, Key::MonthName | Key::MonthShort | Key::DayName | Key::DayShort);
        let letters = if is_upper(written) {
            Letters::Upper
        } else if is_lower(written) {
            Letters::Lower
        } else if has_name && is_upper(&written[..1]) && is_lower(&written[1..]) {
            Letters::Capital
        } else {
            return None;
        };
        Some((*name, *key, letters))
    })
}

/// Reads text up to the closing quote, and returns the rest. A backslash makes the next character
/// literal.
fn quote<'a>(text: &'a str, nodes: &mut Vec<Node>) -> &'a str {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => nodes.extend(characters.next().map(Node::Literal)),
            _ => nodes.push(Node::Literal(character)),
        }
    }
    characters.as_str()
}
