//! The Helm chart, checked without a cluster: `helm` renders it with a matrix of values, and the
//! objects are checked by the schemas of two versions of Kubernetes and by the rules of [`checks`].
//!
//! `deploy/setup.sh chart` brings the tools. Each rule is proved by objects that break it.

mod checks;
mod rules;
mod values;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_e2e::process::workspace;

/// The oldest version that the chart's `kubeVersion` and this project support, and the newest with
/// schemas.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// A tool of `deploy/setup.sh chart`.
fn tool(name: &str) -> Result<PathBuf> {
    let path = workspace().join(".cache/kubernetes").join(name);
    ensure!(path.exists(), "no {}; `deploy/setup.sh chart` provides it", path.display());
    Ok(path)
}

fn chart() -> PathBuf {
    workspace().join("deploy/helm/weir")
}

/// Runs `helm COMMAND … --values values`.
fn helm(command: &[&str], values: &Value) -> Result<Output> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(values.to_string().as_bytes())?;
    let mut helm = Command::new(tool("bin/helm")?);
    helm.args(command).arg(chart()).args(["--namespace", "weir", "--values"]).arg(file.path());
    helm.output().context("helm does not start")
}

/// Renders the chart as release `weir`, or returns what helm says against the values.
fn template(values: &Value) -> Result<Result<String, String>> {
    let output = helm(&["template", "weir"], values)?;
    let told = String::from_utf8(output.stderr)?;
    Ok(if output.status.success() { Ok(String::from_utf8(output.stdout)?) } else { Err(told) })
}

/// The objects of a rendering, and what the schemas say against them.
#[derive(serde::Deserialize)]
struct Parsed {
    objects: Vec<Value>,
    findings: Vec<String>,
}

/// Parses each rendering.
fn parse(renderings: &BTreeMap<String, String>) -> Result<BTreeMap<String, Parsed>> {
    let script = workspace().join("e2e/tests/it/chart/manifests.py");
    let mut python = Command::new(tool("venv/bin/python")?)
        .arg(script)
        .args(VERSIONS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    python.stdin.take().context("no standard input")?.write_all(json!(renderings).to_string().as_bytes())?;
    let output = python.wait_with_output()?;
    ensure!(output.status.success(), "manifests.py ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The objects of the chart with these values.
fn objects(values: &Value) -> Result<Vec<Value>> {
    let text = template(values)?.map_err(anyhow::Error::msg)?;
    let parsed = parse(&BTreeMap::from([(String::new(), text)]))?;
    Ok(parsed.into_values().next().context("nothing parsed")?.objects)
}

fn trial() -> Value {
    json!({"trial": {"enabled": true}})
}

/// The values that an installation beside an own etcd and object store must set.
fn production() -> Value {
    json!({
        "state": {"url": "s3://weir-state/production", "region": "eu-central-1", "existingSecret": "weir-object-store"},
        "etcd": {"endpoints": ["http://etcd-0.etcd:2379", "http://etcd-1.etcd:2379"]},
    })
}

/// Puts `extra` over `values`, as helm does with several files.
fn over(mut values: Value, extra: &Value) -> Value {
    fn put(values: &mut Value, extra: &Value) {
        match (values, extra) {
            (Value::Object(values), Value::Object(extra)) => {
                for (key, value) in extra {
                    put(values.entry(key).or_insert(Value::Null), value);
                }
            }
            (values, extra) => *values = extra.clone(),
        }
    }
    put(&mut values, extra);
    values
}

/// All that can be set for a part, in forms that differ from the defaults.
fn part() -> Value {
    json!({
        "annotations": {"example.com/owner": "data"},
        "labels": {"example.com/tier": "streaming"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "streaming", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}]}]}}},
        "priorityClassName": "high",
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    })
}

/// The matrix: each name with the values that it is installed with.
fn matrix() -> BTreeMap<&'static str, Value> {
    let everything = json!({
        "image": {"digest": format!("sha256:{}", "0".repeat(64)), "pullSecrets": [{"name": "registry"}]},
        "listenHost": "[::]", "insecure": false, "otlpEndpoint": "http://collector.monitoring:4317",
        "state": {"endpoint": "http://minio.storage:9000"}, "nats": {"existingSecret": "weir-nats"},
        "commonLabels": {"example.com/team": "data"}, "commonAnnotations": {"example.com/by": "platform"},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/weir"}},
        "meta": over(part(), &json!({"config": {"barrier_interval_ms": 500}})), "compute": part(), "frontend": part(),
        "networkPolicy": {"etcd": {"to": [{"namespaceSelector": {}}]}},
        "podMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true},
    });
    let keda = json!({"keda": {"enabled": true, "prometheusAddress": "http://prometheus.monitoring:9090"}});
    let volume = json!({"state": {"url": "", "volume": {"enabled": true, "accessMode": "ReadWriteMany"}}});
    let bare = json!({
        "fullnameOverride": "streams", "topologySpread": [], "networkPolicy": {"enabled": false},
        "serviceAccount": {"create": false}, "meta": {"replicas": 1}, "compute": {"replicas": 5},
        "state": {"volume": {"existingClaim": "shared"}},
        "frontend": {"replicas": 3, "service": {"type": "LoadBalancer", "port": 5432}},
    });
    BTreeMap::from([
        ("trial", trial()),
        ("production", production()),
        ("everything", over(production(), &over(everything, &json!({"compute": keda})))),
        (
            "hpa",
            over(
                production(),
                &json!({"compute": {"autoscaling": {"enabled": true}}, "frontend": {"autoscaling": {"enabled": true}}}),
            ),
        ),
        ("bare", over(over(production(), &volume), &bare)),
    ])
}

/// The objects of each entry of the matrix.
fn rendered() -> Result<BTreeMap<String, Vec<Value>>> {
    let mut renderings = BTreeMap::new();
    for (name, values) in matrix() {
        let text = template(&values)?.map_err(anyhow::Error::msg).with_context(|| format!("values \"{name}\""))?;
        ensure!(!text.lines().any(|line| line.ends_with(' ')), "values \"{name}\": blanks at the end of a line");
        renderings.insert(name.to_owned(), text);
    }
    Ok(parse(&renderings)?.into_iter().map(|(name, parsed)| (name, parsed.objects)).collect())
}

#[test]
fn helm_finds_nothing_to_improve() -> Result<()> {
    for (name, values) in matrix() {
        let output = helm(&["lint", "--strict"], &values)?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "values \"{name}\": {told}");
    }
    Ok(())
}

#[test]
fn objects_have_the_schemas_of_kubernetes() -> Result<()> {
    let mut renderings = BTreeMap::new();
    for (name, values) in matrix() {
        renderings.insert(name.to_owned(), template(&values)?.map_err(anyhow::Error::msg)?);
    }
    for (name, Parsed { objects, findings }) in parse(&renderings)? {
        ensure!(objects.len() > 10, "values \"{name}\" make {} objects", objects.len());
        ensure!(findings.is_empty(), "values \"{name}\":\n{}", findings.join("\n"));
    }
    // The same objects with faults.
    let text = &renderings["trial"];
    let faults = [
        ("minReadySeconds: 15", "minReadySecond: 15", "minReadySecond"),
        ("minReadySeconds: 15", "minReadySeconds: soon", "soon"),
        ("kind: StatefulSet", "kind: StatefulGet", "StatefulGet"),
        ("imagePullPolicy: IfNotPresent", "image: weir:1", "stand twice"),
    ];
    for (right, wrong, told) in faults {
        let faulty = text.replacen(right, wrong, 1);
        ensure!(faulty != *text, "\"{right}\" is not there");
        let parsed = parse(&BTreeMap::from([(String::new(), faulty)]))?;
        let findings = &parsed[""].findings;
        ensure!(findings.iter().any(|finding| finding.contains(told)), "{wrong}: {findings:?}");
    }
    Ok(())
}

#[test]
fn objects_fit_together() -> Result<()> {
    for (name, objects) in rendered()? {
        let findings = checks::all(&objects)?;
        ensure!(findings.is_empty(), "values \"{name}\":\n{}", findings.join("\n"));
    }
    Ok(())
}

#[test]
fn manifests_are_rendered_from_the_chart() -> Result<()> {
    for name in ["trial", "production"] {
        let folder = workspace().join("deploy/kubernetes");
        let values = folder.join(format!("values-{name}.yaml"));
        let mut helm = Command::new(tool("bin/helm")?);
        helm.args(["template", "weir", "deploy/helm/weir", "--namespace", "weir", "--values"]).arg(&values);
        let output = helm.current_dir(workspace()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = format!("deploy/kubernetes/{name}.yaml");
        ensure!(
            std::fs::read(folder.join(format!("{name}.yaml")))? == output.stdout,
            "{file} is not what the chart renders; helm template weir deploy/helm/weir --namespace weir --values \
             deploy/kubernetes/values-{name}.yaml > {file}"
        );
    }
    Ok(())
}

#[test]
fn values_that_cannot_work_are_refused() -> Result<()> {
    let refused = [
        (json!({}), "state.url is missing"),
        (json!({"state": {"url": "s3://bucket/prefix"}}), "etcd.endpoints is missing"),
        (over(trial(), &json!({"compute": {"replicas": 2}})), "cannot share a volume"),
        (over(trial(), &json!({"compute": {"autoscaling": {"enabled": true}}})), "cannot share a volume"),
        (
            over(production(), &json!({"compute": {"autoscaling": {"enabled": true}, "keda": {"enabled": true}}})),
            "enable one",
        ),
        (over(production(), &json!({"compute": {"keda": {"enabled": true}}})), "prometheusAddress is missing"),
        (over(production(), &json!({"meta": {"replicas": 2}})), "/meta/replicas"),
        (over(production(), &json!({"metta": {"replicas": 3}})), "metta"),
        (over(production(), &json!({"image": {"tag": "latest"}})), "/image/tag"),
        (over(production(), &json!({"image": {"digest": "sha256:1"}})), "/image/digest"),
        (over(production(), &json!({"helmTest": {"image": "postgres"}})), "/helmTest/image"),
        (over(production(), &json!({"trial": {"nats": {"image": "nats:latest"}}})), "/trial/nats/image"),
        (over(production(), &json!({"state": {"url": "file:///state"}})), "/state/url"),
        (
            over(production(), &json!({"compute": {"terminationGracePeriodSeconds": 1}})),
            "/compute/terminationGracePeriodSeconds",
        ),
        (over(production(), &json!({"probes": {"liveness": {"exec": {}}}})), "/probes/liveness"),
    ];
    for (values, expected) in refused {
        match template(&values)? {
            Ok(_) => anyhow::bail!("not refused: {values}"),
            Err(told) => ensure!(told.contains(expected), "{values}: {told}"),
        }
    }
    Ok(())
}

#[test]
fn a_changed_configuration_restarts_those_who_read_it() -> Result<()> {
    let templates = |values: &Value| -> Result<BTreeMap<String, Value>> {
        let workloads = objects(values)?.into_iter().filter(|object| object["spec"]["template"].is_object());
        let entry = |object: Value| {
            (checks::component(&object["spec"]["template"]).to_owned(), object["spec"]["template"].clone())
        };
        Ok(workloads.map(entry).collect())
    };
    let before = templates(&production())?;
    for part in ["meta", "compute", "frontend"] {
        let after = templates(&over(production(), &json!({part: {"config": {"http_listen": "0.0.0.0:1"}}})))?;
        let changed = after.iter().filter(|(name, template)| before.get(*name) != Some(*template));
        let changed = changed.map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        ensure!(changed == [part], "the configuration of {part} restarts {changed:?}");
    }
    Ok(())
}
