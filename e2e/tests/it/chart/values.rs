//! `values.yaml`, `values.schema.json` and the templates name the same values.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{chart, parse};

/// The parts whose values helpers read as `.part`.
const PARTS: [&str; 3] = ["meta", "compute", "frontend"];

/// The paths of values: of mappings whose keys the chart knows, those of their values. Where users
/// choose the keys, as of annotations, it is the mapping.
fn paths(schema: &Value, definitions: &Value, path: &str, found: &mut BTreeSet<String>) {
    let named = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/definitions/"));
    let schema = named.map_or(schema, |name| &definitions[name]);
    match schema["properties"].as_object().filter(|_| schema["additionalProperties"] == false) {
        Some(properties) => {
            for (name, schema) in properties.iter().filter(|(name, _)| !(path.is_empty() && *name == "global")) {
                paths(schema, definitions, &format!("{path}.{name}"), found);
            }
        }
        None => {
            found.insert(path.to_owned());
        }
    }
}

/// Goes through values and schema together. Findings are values that the schema does not know.
fn unknown(values: &Value, known: &BTreeSet<String>, path: &str) -> Vec<String> {
    if known.contains(path) {
        return Vec::new();
    }
    match values.as_object() {
        Some(values) if !values.is_empty() || path.is_empty() => {
            values.iter().flat_map(|(name, value)| unknown(value, known, &format!("{path}.{name}"))).collect()
        }
        _ => vec![path.to_owned()],
    }
}

/// Schemas that let any key in although they list keys, but for those that say so by a schema of
/// others.
fn open(schema: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if schema["properties"].is_object() && schema["additionalProperties"].is_null() {
        found.push(path.to_owned());
    }
    for place in ["properties", "definitions"] {
        for (name, schema) in schema[place].as_object().into_iter().flatten() {
            found.append(&mut open(schema, &format!("{path}.{name}")));
        }
    }
    found
}

fn templates(folder: &Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            templates(&path, text)?;
        } else {
            text.push_str(&std::fs::read_to_string(path)?);
        }
    }
    Ok(())
}

/// The values that templates read: the longest run of names after `.Values` or `part`.
fn read(templates: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, parts) in
        [(".Values.", &[""][..]), (".part.", &PARTS[..]), ("$part.", &PARTS[..]), ("$policy.", &["networkPolicy"][..])]
    {
        for rest in templates.split(start).skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            let names = rest[..end].trim_end_matches('.');
            found.extend(parts.iter().map(|part| match *part {
                "" => format!(".{names}"),
                part => format!(".{part}.{names}"),
            }));
        }
    }
    found
}

/// True if one path is the other or a part of it.
fn within(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The differences between the three.
fn compare(values: &Value, schema: &Value, templates: &str) -> Vec<String> {
    let mut known = BTreeSet::new();
    paths(schema, &schema["definitions"], "", &mut known);
    let read = read(templates);
    let mut findings = Vec::new();
    findings.extend(unknown(values, &known, "").iter().map(|path| format!("the schema lacks {path}")));
    findings.extend(open(schema, "").iter().map(|path| format!("the schema of {path} lets any key in")));
    for path in &known {
        if values.pointer(&path.replace('.', "/")).is_none() {
            findings.push(format!("values.yaml lacks {path}"));
        }
        if !read.iter().any(|read| within(path, read)) {
            findings.push(format!("no template reads {path}"));
        }
    }
    for path in read.iter().filter(|path| !known.iter().any(|known| within(known, path) || within(path, known))) {
        // Helpers are shared by parts, not all of which have every value.
        let shared = PARTS.iter().any(|part| path.starts_with(&format!(".{part}.")));
        let name = path.splitn(3, '.').nth(2).unwrap_or_default();
        let elsewhere = PARTS.iter().any(|part| known.iter().any(|known| within(known, &format!(".{part}.{name}"))));
        if !(shared && elsewhere) {
            findings.push(format!("a template reads {path}, which is no value"));
        }
    }
    findings
}

#[test]
fn values_are_in_the_schema_and_read_by_templates() -> Result<()> {
    let text = std::fs::read_to_string(chart().join("values.yaml"))?;
    let parsed = parse(&[("values".to_owned(), text)].into())?;
    let values = parsed["values"].objects.first().context("no values")?.clone();
    let schema: Value = serde_json::from_slice(&std::fs::read(chart().join("values.schema.json"))?)?;
    let mut text = String::new();
    templates(&chart().join("templates"), &mut text)?;
    let findings = compare(&values, &schema, &text);
    ensure!(findings.is_empty(), "{}", findings.join("\n"));

    let expect = |values: &Value, schema: &Value, text: &str, expected: &str| -> Result<()> {
        let findings = compare(values, schema, text);
        ensure!(findings.iter().any(|finding| finding == expected), "not found: {expected}; {findings:?}");
        Ok(())
    };
    let mut more = values.clone();
    more["state"]["bucket"] = "b".into();
    expect(&more, &schema, &text, "the schema lacks .state.bucket")?;
    let mut fewer = values.clone();
    fewer["state"].as_object_mut().context("no state")?.remove("region");
    expect(&fewer, &schema, &text, "values.yaml lacks .state.region")?;
    expect(&values, &schema, &text.replace(".Values.state.region", ""), "no template reads .state.region")?;
    let typed = text.replace(".Values.state.region", ".Values.state.zone");
    expect(&values, &schema, &typed, "a template reads .state.zone, which is no value")?;
    let mut loose = schema.clone();
    loose["properties"]["log"].as_object_mut().context("no log")?.remove("additionalProperties");
    expect(&values, &loose, &text, "the schema of .log lets any key in")
}
