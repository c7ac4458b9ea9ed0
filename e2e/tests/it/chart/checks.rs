//! Rules over the objects of one installation. Each returns findings; none of them knows the chart.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_e2e::process::workspace;

use super::{matrix, objects};

/// Variables of Weir that are no flags.
const NO_FLAGS: [&str; 2] = ["WEIR_LOG", "WEIR_LOG_FORMAT"];

type Check = fn(&[Value]) -> Result<Vec<String>>;

const ALL: [Check; 8] =
    [selectors, ports, restricted, references, addresses, containers, configured, disruption_and_isolation];

/// The findings of all rules.
pub(super) fn all(objects: &[Value]) -> Result<Vec<String>> {
    let found = ALL.iter().map(|check| check(objects)).collect::<Result<Vec<_>>>()?;
    Ok(found.concat())
}

/// The part that a pod, or the template of one, belongs to.
pub(super) fn component(pod: &Value) -> &str {
    text(&pod["metadata"]["labels"]["app.kubernetes.io/component"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn called(object: &Value) -> String {
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// Every pod with the name of what makes it: templates of workloads, and single pods.
fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let template = |object: &Value| object["spec"]["template"].is_object();
    objects
        .iter()
        .filter(|object| object["kind"] == "Pod" || template(object))
        .map(|object| (called(object), if template(object) { &object["spec"]["template"] } else { object }))
        .collect()
}

fn containers_of(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| items(&pod["spec"][list]))
}

/// True if a label selector selects something with these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object();
    let equal = equal.is_none_or(|wanted| wanted.iter().all(|(label, value)| labels.get(label) == Some(value)));
    let among = items(&selector["matchExpressions"]).iter().all(|expression| {
        let label = labels.get(text(&expression["key"]));
        expression["operator"] == "In" && label.is_some_and(|label| items(&expression["values"]).contains(label))
    });
    equal && among
}

fn selected<'a>(objects: &'a [Value], selector: &Value) -> Vec<&'a Value> {
    pods(objects).into_iter().map(|(_, pod)| pod).filter(|pod| selects(selector, &pod["metadata"]["labels"])).collect()
}

/// The selector of an object that selects pods.
fn selector(object: &Value) -> Option<Value> {
    let spec = &object["spec"];
    match text(&object["kind"]) {
        "Service" => Some(json!({"matchLabels": spec["selector"]})),
        "NetworkPolicy" => Some(spec["podSelector"].clone()),
        "StatefulSet" | "Deployment" | "PodDisruptionBudget" | "PodMonitor" => Some(spec["selector"].clone()),
        _ => None,
    }
}

/// Selectors select pods, and those of workloads the pods that the workload makes, alone.
fn selectors(objects: &[Value]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for object in objects {
        let Some(selector) = selector(object) else { continue };
        let found = selected(objects, &selector);
        if found.is_empty() {
            findings.push(format!("{} selects no pod", called(object)));
        }
        let template = &object["spec"]["template"];
        if template.is_object() && found != [template] {
            findings.push(format!("{} selects other pods than its own", called(object)));
        }
        for constraint in items(&template["spec"]["topologySpreadConstraints"]) {
            if !selects(&constraint["labelSelector"], &template["metadata"]["labels"]) {
                findings.push(format!("{} spreads other pods than its own", called(object)));
            }
        }
    }
    Ok(findings)
}

/// True if a container of the pod has the port, by name or number.
fn has_port(pod: &Value, port: &Value) -> bool {
    let mut ports = containers_of(pod).flat_map(|container| items(&container["ports"]));
    ports.any(|known| known["name"] == *port || known["containerPort"] == *port)
}

/// Ports that are named exist in every pod that is meant.
fn ports(objects: &[Value]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut expect = |by: &Value, port: &Value, pods: &[&Value]| {
        for pod in pods.iter().filter(|pod| !has_port(pod, port)) {
            findings.push(format!("{} names port {port}, which pods of {} lack", called(by), component(pod)));
        }
    };
    for object in objects {
        let own = selector(object).map(|selector| selected(objects, &selector)).unwrap_or_default();
        match text(&object["kind"]) {
            "Service" => {
                items(&object["spec"]["ports"]).iter().for_each(|port| expect(object, &port["targetPort"], &own))
            }
            "PodMonitor" => {
                items(&object["spec"]["podMetricsEndpoints"]).iter().for_each(|end| expect(object, &end["port"], &own));
            }
            "NetworkPolicy" => {
                for rule in items(&object["spec"]["ingress"]) {
                    items(&rule["ports"]).iter().for_each(|port| expect(object, &port["port"], &own));
                }
                for port in items(&object["spec"]["egress"]).iter().flat_map(|rule| items(&rule["ports"])) {
                    // Numbers may be those of others.
                    if port["port"].is_string() {
                        let named = pods(objects).into_iter().any(|(_, pod)| has_port(pod, &port["port"]));
                        if !named {
                            expect(object, &port["port"], &own);
                        }
                    }
                }
            }
            _ => {}
        }
        for pod in pods(std::slice::from_ref(object)).into_iter().map(|(_, pod)| pod) {
            for container in containers_of(pod) {
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                    let port = &container[probe]["httpGet"]["port"];
                    if !port.is_null() {
                        expect(object, port, &[pod]);
                    }
                }
            }
        }
    }
    Ok(findings)
}

/// Pods fit the Pod Security Standard "restricted", with numeric users and a root that cannot be
/// written.
fn restricted(objects: &[Value]) -> Result<Vec<String>> {
    const VOLUMES: [&str; 7] =
        ["configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "downwardAPI", "csi"];
    let mut findings = Vec::new();
    for (name, pod) in pods(objects) {
        let spec = &pod["spec"];
        let security = &spec["securityContext"];
        let mut must = |holds: bool, what: &str| {
            if !holds {
                findings.push(format!("{name}: {what}"));
            }
        };
        must(security["runAsNonRoot"] == true, "runAsNonRoot");
        must(security["runAsUser"].as_u64().is_some_and(|user| user > 0), "a numeric user");
        must(security["seccompProfile"]["type"] == "RuntimeDefault", "seccomp");
        must(spec["automountServiceAccountToken"] == false, "no token of a service account");
        must(spec["enableServiceLinks"] == false, "no variables of services");
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            must(spec[shared].is_null(), shared);
        }
        for volume in items(&spec["volumes"]) {
            let mut kinds = volume.as_object().into_iter().flat_map(|volume| volume.keys());
            must(kinds.all(|kind| kind == "name" || VOLUMES.contains(&kind.as_str())), "volumes");
        }
        for container in containers_of(pod) {
            let own = &container["securityContext"];
            must(own["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation");
            must(own["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem");
            must(own["capabilities"] == json!({"drop": ["ALL"]}), "capabilities");
            must(own["privileged"].is_null() && own["runAsUser"].is_null(), "no privileges of its own");
            let mut ports = items(&container["ports"]).iter();
            must(ports.all(|port| port["hostPort"].is_null()), "no ports of the host");
        }
    }
    Ok(findings)
}

/// Objects that are named exist; secrets are the user's own.
fn references(objects: &[Value]) -> Result<Vec<String>> {
    let exists = |kind: &str, name: &Value| of_kind(objects, kind).any(|object| object["metadata"]["name"] == *name);
    let mut findings = Vec::new();
    let mut expect = |by: &str, kind: &str, name: &Value| {
        if !name.is_null() && !exists(kind, name) {
            findings.push(format!("{by} names {kind} {name}, which does not exist"));
        }
    };
    for (name, pod) in pods(objects) {
        for volume in items(&pod["spec"]["volumes"]) {
            expect(&name, "ConfigMap", &volume["configMap"]["name"]);
            if volume["persistentVolumeClaim"]["claimName"] != "shared" {
                expect(&name, "PersistentVolumeClaim", &volume["persistentVolumeClaim"]["claimName"]);
            }
        }
        if pod["spec"]["serviceAccountName"] != "default" {
            expect(&name, "ServiceAccount", &pod["spec"]["serviceAccountName"]);
        }
    }
    for object in objects {
        expect(&called(object), "Service", &object["spec"]["serviceName"]);
        let target = &object["spec"]["scaleTargetRef"];
        expect(&called(object), text(&target["kind"]), &target["name"]);
    }
    findings.append(&mut scaled_twice(objects));
    findings.append(&mut unresolved(objects));
    Ok(findings)
}

/// Workloads whose number of pods is both fixed and scaled.
fn scaled_twice(objects: &[Value]) -> Vec<String> {
    let fixed = objects.iter().filter(|object| !object["spec"]["replicas"].is_null());
    let fixed = fixed.map(|object| (&object["kind"], &object["metadata"]["name"])).collect::<Vec<_>>();
    let target = |object: &Value| {
        let target = &object["spec"]["scaleTargetRef"];
        fixed.contains(&(&target["kind"], &target["name"]))
    };
    let scaling = objects.iter().filter(|object| target(object));
    scaling.map(|object| format!("{} scales a workload whose number of pods is fixed", called(object))).collect()
}

/// Mounts of volumes that the pod lacks, and variables that refer to later ones or none.
fn unresolved(objects: &[Value]) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, pod) in pods(objects) {
        let owner = objects.iter().find(|object| called(object) == name);
        let claims = owner.map_or(&Value::Null, |owner| &owner["spec"]["volumeClaimTemplates"]);
        let volumes = items(&pod["spec"]["volumes"]).iter().map(|volume| &volume["name"]);
        let volumes = volumes.chain(items(claims).iter().map(|claim| &claim["metadata"]["name"])).collect::<Vec<_>>();
        for container in containers_of(pod) {
            for mount in items(&container["volumeMounts"]) {
                if !volumes.contains(&&mount["name"]) {
                    findings.push(format!("{name} mounts volume {}, which does not exist", mount["name"]));
                }
            }
            let mut defined = BTreeSet::new();
            for variable in items(&container["env"]) {
                for used in text(&variable["value"]).split("$(").skip(1).filter_map(|rest| rest.split(')').next()) {
                    if !defined.contains(used) {
                        findings
                            .push(format!("{name}: {} refers to {used}, which is not set before", variable["name"]));
                    }
                }
                if !defined.insert(text(&variable["name"])) {
                    findings.push(format!("{name}: {} is set twice", variable["name"]));
                }
            }
        }
    }
    findings
}

/// The environment of a pod's first container, with its name in place of `$(POD_NAME)`.
fn environment(pod: &Value, pod_name: &str) -> BTreeMap<String, String> {
    let variables = containers_of(pod).take(1).flat_map(|container| items(&container["env"]));
    let value = |variable: &Value| text(&variable["value"]).replace("$(POD_NAME)", pod_name);
    variables.map(|variable| (text(&variable["name"]).to_owned(), value(variable))).collect()
}

/// The meta nodes that others are told of are the ones that exist, under the addresses that they
/// advertise.
fn addresses(objects: &[Value]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let metas = of_kind(objects, "StatefulSet").find(|object| component(&object["spec"]["template"]) == "meta");
    let metas = metas.context("no meta nodes")?;
    let name = |index: u64| format!("{}-{index}", text(&metas["metadata"]["name"]));
    let replicas = 0..metas["spec"]["replicas"].as_u64().context("how many meta nodes there are")?;
    let advertised =
        replicas.map(|index| environment(&metas["spec"]["template"], &name(index)).remove("WEIR_ADVERTISE"));
    let advertised = advertised.collect::<Option<Vec<_>>>().context("a meta node advertises no address")?.join(",");
    for (name, pod) in pods(objects) {
        if ["compute", "frontend"].contains(&component(pod)) {
            let told = environment(pod, "pod").remove("WEIR_META_ADDR").unwrap_or_default();
            if told != advertised {
                findings.push(format!("{name} looks for meta nodes at {told}, they are at {advertised}"));
            }
        }
    }
    for object in of_kind(objects, "StatefulSet") {
        let environment = environment(&object["spec"]["template"], "pod");
        let Some(advertised) = environment.get("WEIR_ADVERTISE") else { continue };
        let (service, namespace) = (text(&object["spec"]["serviceName"]), text(&object["metadata"]["namespace"]));
        if !advertised.starts_with(&format!("pod.{service}.{namespace}.svc.")) {
            findings.push(format!("{} advertises {advertised}, which is no name of its pods", called(object)));
        }
    }
    Ok(findings)
}

/// Containers need no shell, have images of one version, resources and probes, and pods of Weir a
/// checksum of what they read.
fn containers(objects: &[Value]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for (name, pod) in pods(objects) {
        for container in containers_of(pod) {
            let mut words = ["command", "args"].into_iter().flat_map(|list| items(&container[list])).map(text);
            if words.any(|word| ["sh", "bash", "-c"].contains(&word.rsplit('/').next().unwrap_or_default())) {
                findings.push(format!("{name} needs a shell"));
            }
            let image = text(&container["image"]);
            let tagged = image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
            if !tagged || image.ends_with(":latest") {
                findings.push(format!("{name}: image {image} may be any version"));
            }
            if container["resources"]["requests"].is_null() || container["resources"]["limits"]["memory"].is_null() {
                findings.push(format!("{name} has no resources"));
            }
            if !["meta", "compute", "frontend"].contains(&component(pod)) {
                continue;
            }
            let probes = [("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")];
            for (probe, path) in probes {
                if container[probe]["httpGet"]["path"] != path {
                    findings.push(format!("{name}: {probe} is not {path}"));
                }
            }
            let annotations = pod["metadata"]["annotations"].as_object();
            if !annotations.is_some_and(|all| all.keys().any(|key| key.starts_with("checksum/"))) {
                findings.push(format!("{name} has no checksum of its configuration"));
            }
        }
    }
    Ok(findings)
}

/// The binary knows the variables that pods of Weir set and the keys of their files, and takes
/// their values.
fn configured(objects: &[Value]) -> Result<Vec<String>> {
    let example = std::fs::read_to_string(workspace().join("deploy/weir.toml"))?.parse::<toml::Table>()?;
    let mut findings = Vec::new();
    for (name, pod) in pods(objects) {
        let role = component(pod);
        if !["meta", "compute", "frontend"].contains(&role) {
            continue;
        }
        if containers_of(pod).next().is_none_or(|container| container["args"] != json!([role])) {
            findings.push(format!("{name} does not run as {role}"));
        }
        let variables = environment(pod, "pod").into_iter().filter(|(name, _)| name.starts_with("WEIR_"));
        let variables = variables.filter(|(name, _)| name != "WEIR_CONFIG").collect::<BTreeMap<_, _>>();
        let weir = workspace().join("target/debug/weir");
        let output = Command::new(weir).args([role, "--help"]).envs(&variables).output()?;
        if !output.status.success() {
            findings.push(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let help = String::from_utf8(output.stdout)?;
        for variable in variables.keys() {
            let known = NO_FLAGS.contains(&variable.as_str());
            if output.status.success() && !known && !help.contains(&format!("[env: {variable}]")) {
                findings.push(format!("{name}: weir {role} does not know {variable}"));
            }
        }
        let maps = items(&pod["spec"]["volumes"]).iter().map(|volume| &volume["configMap"]["name"]);
        for map in maps.filter_map(|named| of_kind(objects, "ConfigMap").find(|map| map["metadata"]["name"] == *named))
        {
            let file = text(&map["data"]["weir.toml"]).parse::<toml::Table>();
            let Some(table) = file.as_ref().ok().and_then(|file| file.get(role)).and_then(toml::Value::as_table) else {
                findings.push(format!("{} has no table of {role}", called(map)));
                continue;
            };
            for key in table.keys().filter(|key| example[role].get(key.as_str()).is_none()) {
                findings.push(format!("{}: weir {role} does not know {key}", called(map)));
            }
        }
    }
    Ok(findings)
}

/// Each part of Weir has a PodDisruptionBudget, and where there are NetworkPolicies, one denies all
/// pods what others do not allow.
fn disruption_and_isolation(objects: &[Value]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let policies = of_kind(objects, "NetworkPolicy").collect::<Vec<_>>();
    for (name, pod) in pods(objects) {
        let labels = &pod["metadata"]["labels"];
        let mut budgets = of_kind(objects, "PodDisruptionBudget");
        let part = ["meta", "compute", "frontend"].contains(&component(pod));
        if part && !budgets.any(|budget| selects(&budget["spec"]["selector"], labels)) {
            findings.push(format!("{name} has no PodDisruptionBudget"));
        }
        let mut denying = policies.iter().filter(|policy| {
            policy["spec"]["ingress"].is_null() && policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"])
        });
        if !policies.is_empty() && !denying.any(|policy| selects(&policy["spec"]["podSelector"], labels)) {
            findings.push(format!("{name} is not isolated"));
        }
    }
    Ok(findings)
}

/// The one object of this kind and name.
fn find<'a>(objects: &'a mut [Value], kind: &str, name: &str) -> Result<&'a mut Value> {
    let mut found = objects.iter_mut().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.next().with_context(|| format!("no {kind} {name}"))
}

/// A fault: kind and name of an object, where in it, what stands there instead, and the finding.
type Fault = (&'static str, &'static str, &'static str, Value, &'static str);

/// Faults of selectors and ports.
fn faults_of_selection() -> Vec<Fault> {
    vec![
        ("Service", "weir-meta", "/spec/selector/app.kubernetes.io~1component", json!("mata"), "selects no pod"),
        (
            "PodDisruptionBudget",
            "weir-meta",
            "/spec/selector/matchLabels/app.kubernetes.io~1component",
            json!("x"),
            "selects no pod",
        ),
        ("StatefulSet", "weir-meta", "/spec/selector/matchLabels", json!({}), "other pods than its own"),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels/app.kubernetes.io~1component",
            json!("x"),
            "spreads other",
        ),
        ("Service", "weir-frontend", "/spec/ports/0/targetPort", json!("sequel"), "names port \"sequel\""),
        ("NetworkPolicy", "weir-meta", "/spec/ingress/0/ports/0/port", json!("rpc"), "names port \"rpc\""),
        ("NetworkPolicy", "weir-test", "/spec/egress/0/ports/0/port", json!("rpc"), "names port \"rpc\""),
        ("PodMonitor", "weir", "/spec/podMetricsEndpoints/0/port", json!("web"), "names port \"web\""),
        (
            "Deployment",
            "weir-frontend",
            "/spec/template/spec/containers/0/readinessProbe/httpGet/port",
            json!("web"),
            "names port \"web\"",
        ),
    ]
}

/// Faults of pods, and of objects that are named.
fn faults_of_pods() -> Vec<Fault> {
    vec![
        (
            "Deployment",
            "weir-frontend",
            "/spec/template/spec/securityContext/runAsNonRoot",
            json!(false),
            "runAsNonRoot",
        ),
        ("Deployment", "weir-frontend", "/spec/template/spec/securityContext/runAsUser", json!(0), "a numeric user"),
        (
            "Deployment",
            "weir-frontend",
            "/spec/template/spec/securityContext/seccompProfile/type",
            json!("Unconfined"),
            "seccomp",
        ),
        ("Pod", "weir-test", "/spec/automountServiceAccountToken", json!(true), "no token"),
        ("Pod", "weir-test", "/spec/enableServiceLinks", json!(true), "no variables of services"),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/volumes/0",
            json!({"name": "config", "hostPath": {}}),
            "volumes",
        ),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
            "readOnlyRootFilesystem",
        ),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/containers/0/securityContext/capabilities",
            json!({"add": ["SYS_ADMIN"]}),
            "capabilities",
        ),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/containers/0/ports/0",
            json!({"name": "grpc", "containerPort": 1, "hostPort": 1}),
            "no ports of the host",
        ),
        ("ConfigMap", "weir-compute", "/metadata/name", json!("other"), "names ConfigMap"),
        ("ServiceAccount", "weir", "/metadata/name", json!("other"), "names ServiceAccount"),
        ("ScaledObject", "weir-compute", "/spec/scaleTargetRef/name", json!("compute"), "names StatefulSet"),
        ("ScaledObject", "weir-compute", "/spec/scaleTargetRef/name", json!("weir-meta"), "is fixed"),
        ("StatefulSet", "weir-compute", "/spec/serviceName", json!("other"), "names Service"),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/containers/0/volumeMounts/0/name",
            json!("data"),
            "mounts volume \"data\"",
        ),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/containers/0/env/0/name",
            json!("NAME"),
            "refers to POD_NAME",
        ),
        ("StatefulSet", "weir-meta", "/spec/template/spec/containers/0/env/1/name", json!("POD_NAME"), "is set twice"),
        ("StatefulSet", "weir-meta", "/spec/replicas", json!(1), "looks for meta nodes"),
        ("StatefulSet", "weir-compute", "/metadata/namespace", json!("other"), "is no name of its pods"),
        ("Pod", "weir-test", "/spec/containers/0/command", json!(["/bin/sh", "-c"]), "needs a shell"),
        ("Pod", "weir-test", "/spec/containers/0/image", json!("postgres"), "may be any version"),
        ("Pod", "weir-test", "/spec/containers/0/image", json!("postgres:latest"), "may be any version"),
        ("Pod", "weir-test", "/spec/containers/0/resources", json!({}), "has no resources"),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/containers/0/livenessProbe/httpGet/path",
            json!("/ready"),
            "is not /health",
        ),
        ("StatefulSet", "weir-meta", "/spec/template/metadata/annotations", json!({}), "no checksum"),
        ("StatefulSet", "weir-meta", "/spec/template/spec/containers/0/args", json!(["mate"]), "does not run as meta"),
        (
            "StatefulSet",
            "weir-meta",
            "/spec/template/spec/containers/0/env/2/name",
            json!("WEIR_LISTENER"),
            "does not know WEIR_LISTENER",
        ),
        ("StatefulSet", "weir-meta", "/spec/template/spec/containers/0/env/2/value", json!("everywhere"), "everywhere"),
        ("ConfigMap", "weir-meta", "/data/weir.toml", json!("[meta]\nlease = 1"), "does not know lease"),
        ("ConfigMap", "weir-meta", "/data/weir.toml", json!("[mete]"), "no table of meta"),
        ("PodDisruptionBudget", "weir-meta", "/kind", json!("Budget"), "no PodDisruptionBudget"),
        ("NetworkPolicy", "weir-default", "/spec/policyTypes", json!(["Ingress"]), "is not isolated"),
    ]
}

#[test]
fn every_rule_finds_what_breaks_it() -> Result<()> {
    let right = objects(&matrix()["everything"])?;
    ensure!(all(&right)?.is_empty(), "the objects are right");
    for (kind, name, path, wrong, expected) in [faults_of_selection(), faults_of_pods()].concat() {
        let mut objects = right.clone();
        let object = find(&mut objects, kind, name)?;
        *object.pointer_mut(path).with_context(|| format!("{kind} {name} has no {path}"))? = wrong;
        let findings = all(&objects)?;
        ensure!(findings.iter().any(|finding| finding.contains(expected)), "{kind} {name} {path}: {findings:?}");
    }
    Ok(())
}
