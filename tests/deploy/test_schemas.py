"""Every rendered object is one that Kubernetes accepts, by its own schemas, without unknown fields."""

import copy

import kubernetes_validate
import pytest

from tests.deploy.manifests import DEPLOY, FOLDERS, Manifest, one, rendered

VERSIONS = ("1.29", "1.37")
"""The first with sidecars, and the newest that the schemas are there for."""

OF_OTHERS = {"HTTPRoute", "InferencePool", "ServiceMonitor", "PrometheusRule"}
"""Kinds that are installed into a cluster: their schemas are not Kubernetes' own."""

OBJECTS = [(folder, item) for folder in FOLDERS for item in rendered(folder)]


def name(item: object) -> str:
    return f"{item['kind']}-{item['metadata']['name']}" if isinstance(item, dict) else str(item)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("folder", "item"), [pair for pair in OBJECTS if pair[1]["kind"] not in OF_OTHERS], ids=name)
def test_an_object_is_valid(folder: str, item: Manifest, version: str) -> None:
    assert kubernetes_validate.validate(item, version, strict=True) == version


@pytest.mark.parametrize("version", VERSIONS)
def test_a_mistake_would_be_found(version: str) -> None:
    wrong = copy.deepcopy(one("example", "Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_every_manifest_is_part_of_what_is_rendered() -> None:
    """None is forgotten in a kustomization."""
    files = {file.name for file in DEPLOY.rglob("*.yaml")} - {"kustomization.yaml", "adapter-values.yaml"}
    listed = "\n".join(file.read_text() for file in DEPLOY.rglob("kustomization.yaml"))
    assert not [file for file in files if file not in listed]


def test_the_other_kinds_are_of_these_versions() -> None:
    assert {(item["kind"], item["apiVersion"]) for _, item in OBJECTS if item["kind"] in OF_OTHERS} == {
        ("HTTPRoute", "gateway.networking.k8s.io/v1"),
        ("InferencePool", "inference.networking.k8s.io/v1"),
        ("PrometheusRule", "monitoring.coreos.com/v1"),
        ("ServiceMonitor", "monitoring.coreos.com/v1"),
    }


def test_all_objects_are_in_one_namespace_that_enforces_restricted_pods() -> None:
    assert {item["metadata"].get("namespace") for _, item in OBJECTS if item["kind"] != "Namespace"} == {"mixtral"}
    labels = one("example", "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
