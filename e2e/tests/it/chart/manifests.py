"""Reads {"name": "rendered YAML"} as JSON from standard input, and checks every object by the schemas of the versions of
Kubernetes that the arguments name. Prints {"name": {"objects": […], "findings": [text]}} as JSON.

Objects of custom resources have no schema here; they are only parsed. Keys that stand twice in a mapping are findings."""

import json
import sys

import jsonschema
import kubernetes_validate
import yaml

CUSTOM = ("monitoring.coreos.com/", "keda.sh/")


class Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
    pass


def mapping(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.YAMLError(f"{node.start_mark}: {sorted(twice)} stand twice")
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value)}


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def check(text, versions):
    objects, findings = [], []
    try:
        objects = [one for one in yaml.load_all(text, Loader) if one is not None]
    except yaml.YAMLError as error:
        findings.append(str(error))
    for one in objects:
        if not {"apiVersion", "kind", "metadata"} <= one.keys():
            findings.append(f"{sorted(one)[:3]} are no object's keys")
            continue
        called = f"{one['kind']} {one['metadata'].get('name')}"
        if one["apiVersion"].startswith(CUSTOM):
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except jsonschema.ValidationError as error:
                path = ".".join(map(str, error.absolute_path))
                findings.append(f"{called}, Kubernetes {version}: {path}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                findings.append(f"{called}, Kubernetes {version}: {error}")
    return {"objects": objects, "findings": findings}


json.dump({name: check(text, sys.argv[1:]) for name, text in json.load(sys.stdin).items()}, sys.stdout)
