//! Which subjects a stream stores messages under: not always those that it listens to.
//!
//! A stream may transform the subject of every message that comes in, and may take messages from other streams, filtered
//! and transformed before. Owns the patterns of what can come in and what becomes of it. Invariant: a pattern is at
//! least as wide as what the server makes of it, so what no pattern matches is never stored from now on. What was stored
//! under an earlier configuration is not known here. Pure.

use serde::Deserialize;

use crate::api::StreamConfig;
use crate::subject;

/// Everything.
const ALL: &str = ">";

/// What a stream, or a stream that takes from another one, makes of subjects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Transform {
    /// Which subjects; empty: all.
    #[serde(default)]
    pub src: String,
    /// What they become; empty: they stay as they are.
    #[serde(default)]
    pub dest: String,
}

/// Another stream that messages are taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Upstream {
    /// Which of its subjects; empty: all.
    #[serde(default)]
    pub filter_subject: String,
    /// What becomes of them. If there are some, nothing else is taken.
    #[serde(default)]
    pub subject_transforms: Vec<Transform>,
}

/// The subjects under which a stream can store messages from now on, as few patterns as covering allows.
pub fn subjects(stream: &StreamConfig) -> Vec<String> {
    let upstreams = stream.mirror.iter().chain(stream.sources.iter().flatten());
    let incoming = stream.subjects.iter().cloned().chain(upstreams.flat_map(Upstream::taken));
    let stored: Vec<String> = match &stream.subject_transform {
        None => incoming.collect(),
        Some(transform) => incoming.flat_map(|pattern| transform.apply(&pattern)).collect(),
    };
    subject::normalise(&stored)
}

impl Upstream {
    /// The subjects of what is taken, transformed.
    fn taken(&self) -> Vec<String> {
        if self.subject_transforms.is_empty() {
            return vec![or_all(&self.filter_subject).to_owned()];
        }
        self.subject_transforms.iter().map(|transform| transform.image(or_all(&transform.src))).collect()
    }
}

impl Transform {
    /// What becomes of the subjects that a pattern matches: the transform is for some of them, or for all.
    fn apply(&self, pattern: &str) -> Vec<String> {
        let src = or_all(&self.src);
        let transformed = subject::intersect(src, pattern).map(|matched| self.image(&matched));
        let untouched = (!subject::covers(src, pattern)).then(|| pattern.to_owned());
        transformed.into_iter().chain(untouched).collect()
    }

    /// What becomes of the subjects that a pattern matches, which lies within the source of the transform.
    fn image(&self, matched: &str) -> String {
        if self.dest.is_empty() {
            return matched.to_owned();
        }
        let (bound, rest) = bind(or_all(&self.src), matched);
        let mut image: Vec<&str> = Vec::new();
        for token in self.dest.split('.') {
            match Mapping::of(token) {
                Mapping::Literal => image.push(token),
                Mapping::Rest => image.extend(&rest),
                Mapping::Wildcard(number) => {
                    image.push(number.checked_sub(1).and_then(|at| bound.get(at)).copied().unwrap_or("*"));
                }
                Mapping::One => image.push("*"),
                Mapping::Many => {
                    image.push(ALL);
                    break;
                }
            }
        }
        // Further tokens cannot follow what stands for all of them.
        let end = image.iter().position(|token| *token == ALL).map_or(image.len(), |at| at + 1);
        image[..end].join(".")
    }
}

/// A token of what a transform makes.
#[derive(Debug, PartialEq, Eq)]
enum Mapping {
    /// Itself.
    Literal,
    /// Everything that the `>` of the source matches.
    Rest,
    /// The token that a wildcard of the source matches, counted from 1.
    Wildcard(usize),
    /// Some token.
    One,
    /// One token or more.
    Many,
}

impl Mapping {
    fn of(token: &str) -> Mapping {
        if token == ALL {
            return Mapping::Rest;
        }
        if let Some(number) = token.strip_prefix('$').and_then(|number| number.parse().ok()) {
            return Mapping::Wildcard(number);
        }
        // Only a token that is a function as a whole is one.
        let Some(call) = token.strip_prefix("{{").and_then(|call| call.strip_suffix("}}")) else {
            return Mapping::Literal;
        };
        let (name, arguments) = call.split_once('(').unwrap_or((call, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "wildcard" => match arguments.trim().trim_end_matches(')').trim().parse() {
                Ok(number) => Mapping::Wildcard(number),
                Err(_) => Mapping::One,
            },
            "partition" | "left" | "right" | "random" => Mapping::One,
            // Those that split a token, and whatever servers learn yet.
            _ => Mapping::Many,
        }
    }
}

/// The tokens that the wildcards of `src` match, and those that its `>` does.
fn bind<'a>(src: &str, matched: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut tokens = matched.split('.');
    let mut bound = Vec::new();
    for token in src.split('.') {
        if token == ALL {
            return (bound, tokens.collect());
        }
        let one = tokens.next();
        if token == "*" {
            bound.extend(one);
        }
    }
    (bound, Vec::new())
}

fn or_all(pattern: &str) -> &str {
    if pattern.is_empty() { ALL } else { pattern }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stored(stream: Value) -> Vec<String> {
        subjects(&serde_json::from_value(stream).expect("a stream"))
    }

    fn transformed(subjects: &[&str], src: &str, dest: &str) -> Vec<String> {
        stored(json!({ "subjects": subjects, "subject_transform": { "src": src, "dest": dest } }))
    }

    #[test]
    fn a_stream_stores_what_it_listens_to_unless_it_transforms_it() {
        assert_eq!(stored(json!({ "subjects": ["a.>", "b"] })), ["a.>", "b"]);
        // As nats-server stores them, see the test of the preflight.
        for (subjects, src, dest, expected) in [
            (&["in.>"][..], "in.>", "out.>", &["out.>"][..]),
            (&["in.a"], "in.>", "out.>", &["out.a"]),
            (&["in.>", "keep.>"], "in.>", "out.>", &["keep.>", "out.>"]),
            (&["in.>"], "in.*", "q", &["in.>", "q"]),
            (&["b.*.*"], "b.*.*", "x.$2.$1", &["x.*.*"]),
            (&["b.1.*"], "b.*.*", "x.$2.{{Wildcard( 1 )}}", &["x.*.1"]),
            (&["c.*"], "c.*", "y.{{partition(5,1)}}.z", &["y.*.z"]),
            (&["d.*"], "d.*", "z.{{Split(1,-)}}.e", &["z.>"]),
            (&["e.*"], "e.*", "z.{{left(1,2)}}", &["z.*"]),
            (&["g.*"], "", "pre.>", &["pre.g.*"]),
            (&["h.*"], "h.*", "", &["h.*"]),
            (&["k.*"], "k.*", "k.x{{wildcard(1)}}", &["k.x{{wildcard(1)}}"]),
            (&["a"], "b.>", "c.>", &["a"]),
        ] {
            assert_eq!(transformed(subjects, src, dest), expected, "{subjects:?}: {src} becomes {dest}");
        }
    }

    #[test]
    fn what_comes_from_other_streams_is_filtered_and_transformed() {
        let out = json!([{ "src": "out.>", "dest": "one.>" }, { "src": "keep.>", "dest": "" }]);
        for (stream, expected) in [
            (json!({ "mirror": { "name": "A" } }), &[">"][..]),
            (json!({ "mirror": { "name": "A", "filter_subject": "a.>" } }), &["a.>"]),
            (json!({ "mirror": { "name": "A", "subject_transforms": out } }), &["keep.>", "one.>"]),
            (
                json!({ "subjects": ["own"], "sources": [{ "name": "A", "subject_transforms": out }, { "filter_subject": "x.>" }] }),
                &["keep.>", "one.>", "own", "x.>"],
            ),
            (
                json!({
                    "sources": [{ "subject_transforms": [{ "src": "out.a", "dest": "two.a" }] }],
                    "subject_transform": { "src": "two.>", "dest": "three.>" },
                }),
                &["three.a"],
            ),
            (json!({ "mirror": { "name": "A" }, "subject_transform": { "src": "a.>", "dest": "b.>" } }), &[">"]),
        ] {
            assert_eq!(stored(stream.clone()), expected, "{stream}");
        }
    }
}
