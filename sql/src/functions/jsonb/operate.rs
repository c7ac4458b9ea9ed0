//! Operators that build one jsonb from another: `||`, `-` and `#-`. Operands and results are in
//! normal form.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::value::{elements, members, type_of, write_string};
use crate::error::{Error, sqlstate};

/// `||`: merges two objects, where the right one's values win. Otherwise concatenates arrays; a
/// value that is not an array counts as an array of itself.
pub(super) fn concat(left: &str, right: &str) -> Result<String, Error> {
    if let ("object", "object") = (type_of(left), type_of(right)) {
        let mut all = members(left)?;
        all.extend(members(right)?);
        return object(&all);
    }
    let mut all = parts(left)?;
    all.extend(parts(right)?);
    Ok(array(&all))
}

fn parts(value: &str) -> Result<Vec<&str>, Error> {
    match type_of(value) {
        "array" => Ok(elements(value)?.into_iter().map(RawValue::get).collect()),
        _ => Ok(vec![value]),
    }
}

fn array(elements: &[&str]) -> String {
    format!("[{}]", elements.join(", "))
}

fn object(members: &BTreeMap<String, &RawValue>) -> Result<String, Error> {
    let values: BTreeMap<&str, &str> = members.iter().map(|(key, value)| (key.as_str(), value.get())).collect();
    object_of(&values)
}

fn object_of(members: &BTreeMap<&str, &str>) -> Result<String, Error> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| (key.len(), **key));
    let mut out = String::from("{");
    for (place, (key, value)) in sorted.into_iter().enumerate() {
        out.push_str(if place == 0 { "" } else { ", " });
        write_string(key, &mut out)?;
        out.push_str(": ");
        out.push_str(value);
    }
    out.push('}');
    Ok(out)
}

fn refused(message: &str) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
}

/// `- text` and `- text[]`: an object without these keys, an array without these strings.
pub(super) fn without_keys(document: &str, keys: &[&str]) -> Result<String, Error> {
    match type_of(document) {
        "object" => {
            let mut kept = members(document)?;
            kept.retain(|key, _| !keys.contains(&key.as_str()));
            object(&kept)
        }
        "array" => {
            let is_named = |element: &RawValue| {
                type_of(element.get()) == "string"
                    && serde_json::from_str::<String>(element.get()).is_ok_and(|text| keys.contains(&text.as_str()))
            };
            let kept = elements(document)?.into_iter().filter(|element| !is_named(element)).map(RawValue::get);
            Ok(array(&kept.collect::<Vec<_>>()))
        }
        _ => Err(refused("cannot delete from scalar")),
    }
}

/// `- integer`: an array without the element at an index. A negative index counts from the end.
pub(super) fn without_element(document: &str, index: i64) -> Result<String, Error> {
    match type_of(document) {
        "object" => Err(refused("cannot delete from object using integer index")),
        "array" => {
            let mut kept = parts(document)?;
            if let Some(place) = place(index, kept.len()) {
                kept.remove(place);
            }
            Ok(array(&kept))
        }
        _ => Err(refused("cannot delete from scalar")),
    }
}

/// The position that an index means in an array of this length, if it is inside.
fn place(index: i64, length: usize) -> Option<usize> {
    let place = match usize::try_from(index) {
        Ok(index) => index,
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
    };
    (place < length).then_some(place)
}

/// `#-`: removes the value at the end of a path.
pub(super) fn without_path(document: &str, path: &[&str]) -> Result<String, Error> {
    if !matches!(type_of(document), "object" | "array") {
        return Err(refused("cannot delete path in scalar"));
    }
    without_step(document, path, 1)
}

fn without_step(document: &str, path: &[&str], position: usize) -> Result<String, Error> {
    let Some((step, rest)) = path.split_first() else { return Ok(document.to_owned()) };
    match type_of(document) {
        "object" => {
            let read = members(document)?;
            let mut values: BTreeMap<&str, &str> =
                read.iter().map(|(key, value)| (key.as_str(), value.get())).collect();
            let changed;
            match values.get(step).copied() {
                Some(_) if rest.is_empty() => {
                    values.remove(step);
                }
                Some(value) => {
                    changed = without_step(value, rest, position + 1)?;
                    values.insert(step, &changed);
                }
                None => {}
            }
            object_of(&values)
        }
        "array" => {
            let index: i64 = step.trim().parse().map_err(|_| {
                let message = format!("path element at position {position} is not an integer: \"{step}\"");
                Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, message)
            })?;
            let mut values = parts(document)?;
            let changed;
            match place(index, values.len()) {
                Some(place) if rest.is_empty() => {
                    values.remove(place);
                }
                Some(place) => {
                    changed = without_step(values[place], rest, position + 1)?;
                    values[place] = &changed;
                }
                None => {}
            }
            Ok(array(&values))
        }
        _ => Ok(document.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 prints them.
    #[test]
    fn values_are_joined_and_reduced() {
        for (left, right, expected) in [
            (r#"{"a": 1, "b": 2}"#, r#"{"b": 3, "aa": null}"#, r#"{"a": 1, "b": 3, "aa": null}"#),
            ("[1]", "2", "[1, 2]"),
            ("1", "[]", "[1]"),
            ("1", "2", "[1, 2]"),
            (r#"{"a": 1}"#, "[2]", r#"[{"a": 1}, 2]"#),
            ("[]", "{}", "[{}]"),
            ("{}", "{}", "{}"),
        ] {
            assert_eq!(concat(left, right).expect(left), expected, "{left} || {right}");
        }
        assert_eq!(without_keys(r#"{"a": 1, "b": 2}"#, &["a"]).expect("an object"), r#"{"b": 2}"#);
        assert_eq!(without_keys(r#"["a", "b", "a", 1]"#, &["a"]).expect("an array"), r#"["b", 1]"#);
        assert!(without_keys("1", &["a"]).is_err());
        assert_eq!(without_element("[1, 2, 3]", -1).expect("an array"), "[1, 2]");
        assert_eq!(without_element("[1, 2, 3]", 5).expect("an array"), "[1, 2, 3]");
        assert!(without_element("{}", 0).is_err());
        assert_eq!(
            without_path(r#"{"a": {"b": [1, 2]}}"#, &["a", "b", "0"]).expect("an object"),
            r#"{"a": {"b": [2]}}"#
        );
        assert_eq!(without_path("[1]", &[]).expect("an array"), "[1]");
        assert!(without_path("[1]", &["x"]).is_err() && without_path("1", &["x"]).is_err());
    }
}
