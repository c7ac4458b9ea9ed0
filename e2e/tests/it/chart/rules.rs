//! Alerts, dashboard and scaling speak of metrics that exist, and alerts fire when they should,
//! which `promtool` says.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_e2e::process::workspace;

use super::{matrix, objects, tool};
use crate::cluster::documented_metrics;

/// The names of Weir's series in a text.
fn series(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("weir_")).map(str::to_owned).collect()
}

/// The series of a text that no metric of the documentation has.
fn unknown(text: &str) -> Result<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    for (name, (kind, _)) in documented_metrics()? {
        if kind == "histogram" {
            known.extend(["bucket", "sum", "count"].map(|end| format!("{name}_{end}")));
        } else {
            known.insert(name);
        }
    }
    Ok(series(text).into_iter().filter(|name| !known.contains(name) && name != "weir_catalog").collect())
}

/// Every string in a value.
fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(values) => values.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

#[test]
fn metrics_of_rules_dashboard_and_scaling_are_documented() -> Result<()> {
    let objects = objects(&matrix()["everything"])?;
    let of = |kind: &str, name: &str| {
        let mut found = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.next().with_context(|| format!("no {kind} {name}"))
    };
    let dashboard = of("ConfigMap", "weir-dashboard")?["data"]["weir.json"].as_str().context("no dashboard")?;
    let dashboard: Value = serde_json::from_str(dashboard)?;
    let places = [
        ("rules", &of("PrometheusRule", "weir")?["spec"], 10),
        ("dashboard", &dashboard, 20),
        ("scaling", &of("ScaledObject", "weir-compute")?["spec"], 1),
    ];
    for (place, value, at_least) in places {
        let mut texts = Vec::new();
        strings(value, &mut texts);
        let text = texts.join(" ");
        ensure!(series(&text).len() >= at_least, "the {place} name {:?}", series(&text));
        ensure!(unknown(&text)?.is_empty(), "the {place} name {:?}, which docs/metrics.md lacks", unknown(&text)?);
    }
    ensure!(unknown("rate(weir_commits[5m]) + weir_commit_latency_seconds")?.len() == 2, "both are unknown");
    Ok(())
}

#[test]
fn alerts_fire_when_they_should() -> Result<()> {
    let objects = objects(&matrix()["everything"])?;
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").context("no rules")?;
    let folder = tempfile::tempdir()?;
    let run = |arguments: &[&str]| -> Result<(bool, String)> {
        let output = Command::new(tool("bin/promtool")?).args(arguments).current_dir(folder.path()).output()?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), told))
    };
    // JSON is YAML.
    std::fs::write(folder.path().join("rules.yaml"), rule["spec"].to_string())?;
    let (passed, told) = run(&["check", "rules", "rules.yaml"])?;
    ensure!(passed, "{told}");
    let tests = std::fs::read_to_string(workspace().join("e2e/tests/it/chart/alerts.yaml"))?;
    std::fs::write(folder.path().join("alerts.yaml"), &tests)?;
    let (passed, told) = run(&["test", "rules", "alerts.yaml"])?;
    ensure!(passed, "{told}");

    // No alert is without a test, and each test can fail: without its alert it does.
    let rules = rule["spec"]["groups"][0]["rules"].as_array().context("no rules")?;
    for (index, alert) in rules.iter().enumerate() {
        let name = alert["alert"].as_str().context("a rule is no alert")?;
        let mut spec = rule["spec"].clone();
        spec["groups"][0]["rules"].as_array_mut().context("no rules")?.remove(index);
        std::fs::write(folder.path().join("rules.yaml"), spec.to_string())?;
        let (passed, _) = run(&["test", "rules", "alerts.yaml"])?;
        ensure!(!passed, "no test of alerts.yaml expects {name}");
    }
    Ok(())
}

#[test]
fn alerts_say_what_is_wrong() -> Result<()> {
    let objects = objects(&matrix()["everything"])?;
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").context("no rules")?;
    let mut names = BTreeSet::new();
    for alert in rule["spec"]["groups"][0]["rules"].as_array().context("no rules")? {
        let name = alert["alert"].as_str().context("a rule is no alert")?;
        for annotation in ["summary", "description"] {
            ensure!(alert["annotations"][annotation].is_string(), "{name} has no {annotation}");
        }
        ensure!(["critical", "warning"].iter().any(|known| alert["labels"]["severity"] == *known), "{name}: severity");
        ensure!(names.insert(name), "{name} is there twice");
    }
    Ok(())
}
