"""The table of docs/scale.md that compares how compose, Kubernetes and the systemd unit confine what they start.

`python -m tests.deploy.security_table` writes it; each cell is read from the files.
"""

import configparser
import re
import sys
from collections.abc import Callable
from typing import Any

from tests.deploy.manifests import ROOT, Manifest, containers, environment, one, serving_pod, volume
from tests.docker.project import DOCKER, read_compose, services

PAGE = ROOT / "docs" / "scale.md"
_BEGIN, _END = "<!-- tests/deploy/security_table.py writes this -->\n", "<!-- end -->\n"
_HEAD = ("", "compose", "Kubernetes", "systemd unit")
_SAME = "as compose"


def table() -> str:
    """In Markdown."""
    rows = [_HEAD, ("---",) * len(_HEAD), *((name, *row()) for name, row in _ROWS.items())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _both(of: Callable[[Any], str], pair: dict[str, Any]) -> str:
    """One value of Triton and of the frontend; both where they differ."""
    triton, frontend = of(pair["triton"]), of(pair["frontend"])
    return triton if triton == frontend else f"Triton {triton}, frontend {frontend}"


def _in_compose(of: Callable[[dict[str, Any]], str]) -> str:
    return _both(of, services())


def _in_pod(of: Callable[[Manifest], str]) -> str:
    return _both(of, containers(serving_pod()))


def _images() -> tuple[str, str, str]:
    def without_registry(container: Manifest) -> str:
        return f"`{container['image'].rpartition('/')[2].partition(':')[0]}`"

    return _in_compose(lambda service: f"`{service['image']}`"), _in_pod(without_registry), _SAME


def _user() -> tuple[str, str, str]:
    users = {re.findall(r"^USER (.*)$", (DOCKER / f"{name}.Dockerfile").read_text(), re.MULTILINE)[-1] for name in
             ("triton", "frontend")}  # fmt: skip
    assert users == {"1000:1000", "frontend"}, "the frontend's image gives that name the id 1000"
    rights = serving_pod()["securityContext"]
    root = "root is refused" if rights["runAsNonRoot"] else "root is accepted"
    unit = _unit()["Service"].get("User", "root")
    return "1000, of the images", f"{rights['runAsUser']}, {root}", f"`docker compose` itself: {unit}"


def _file_system() -> tuple[str, str, str]:
    compose = _in_compose(lambda service: "read-only" if service["read_only"] else "writable")
    pod = _in_pod(lambda container: _read_only(container["securityContext"]["readOnlyRootFilesystem"]))
    return compose, pod, _SAME


def _read_only(value: bool) -> str:
    return "read-only" if value else "writable"


def _capabilities() -> tuple[str, str, str]:
    compose = _in_compose(lambda service: f"{', '.join(service['cap_drop'])} dropped")
    pod = _in_pod(lambda container: f"{', '.join(container['securityContext']['capabilities']['drop'])} dropped")
    return compose, pod, _SAME


def _new_privileges() -> tuple[str, str, str]:
    compose = _in_compose(lambda service: "no" if "no-new-privileges:true" in service["security_opt"] else "yes")
    pod = _in_pod(lambda container: "yes" if container["securityContext"]["allowPrivilegeEscalation"] else "no")
    return compose, pod, _SAME


def _seccomp() -> tuple[str, str, str]:
    options = {option for name in ("triton", "frontend") for option in services()[name]["security_opt"]}
    assert not [option for option in options if option.startswith("seccomp")]
    profile = serving_pod()["securityContext"]["seccompProfile"]["type"]
    return "Docker's default", f"`{profile}`", _SAME


def _tmp() -> tuple[str, str, str]:
    def size(service: dict[str, Any]) -> str:
        return re.sub(r".*size=(\w+)", r"\1", service["tmpfs"][0])

    def size_limit(container: Manifest) -> str:
        return str(volume(serving_pod(), container, "/tmp")["emptyDir"]["sizeLimit"])

    return f"`/tmp`, in memory: {_in_compose(size)}", f"`/tmp`, in memory: {_in_pod(size_limit)}", _SAME


def _repository() -> tuple[str, str, str]:
    compose = _in_compose(lambda service: _read_only("../model_repository:/model_repository:ro" in service["volumes"]))
    pod = _in_pod(lambda container: _read_only(volume(serving_pod(), container, "/model_repository")["readOnly"]))
    return compose, pod, _SAME


def _memory() -> tuple[str, str, str]:
    limits = _in_pod(lambda container: str(container["resources"]["limits"]["memory"]))
    return _in_compose(lambda service: str(service["mem_limit"])), limits, _SAME


def _processes() -> tuple[str, str, str]:
    limit = _in_compose(lambda service: str(service["pids_limit"]))
    return limit, "the kubelet's `podPidsLimit`: set it on the nodes", _SAME


def _triton() -> tuple[str, str, str]:
    networks = read_compose("compose.yaml")["networks"]
    assert all(networks[name]["internal"] for name in services()["triton"]["networks"])
    address = next(arg for arg in containers(serving_pod())["triton"]["args"] if "address" in arg).partition("=")[2]
    return "frontend and Prometheus, on an internal network", f"the frontend, on {address} of the pod", _SAME


def _api() -> tuple[str, str, str]:
    (port,) = services()["frontend"]["ports"]
    (peer,) = one("example", "NetworkPolicy", "clients")["spec"]["ingress"][0]["from"]
    ((label, value),) = peer["namespaceSelector"]["matchLabels"].items()
    return f"{port.rpartition(':')[0].rpartition(':')[0]} (`LISTEN`)", f"namespaces labelled `{label}={value}`", _SAME


def _way_out() -> tuple[str, str, str]:
    networks = read_compose("compose.yaml")["networks"]

    def out(service: dict[str, Any]) -> str:
        internal = all((networks[name] or {}).get("internal", False) for name in service["networks"])
        return "none" if internal else "yes"

    assert one("example", "NetworkPolicy", "closed")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    return _in_compose(out), "none", _SAME


def _keys() -> tuple[str, str, str]:
    compose = services()["frontend"]["environment"]["FRONTEND_API_KEY_FILE"] or "none until `API_KEY_FILE` is set"
    pod = environment(containers(serving_pod())["frontend"])["FRONTEND_API_KEY_FILE"]
    return compose, f"`{pod}` of a Secret, without which no pod starts", _SAME


def _token() -> tuple[str, str, str]:
    mounted = serving_pod()["automountServiceAccountToken"]
    return "there is none", "mounted" if mounted else "not mounted", "there is none"


def _log() -> tuple[str, str, str]:
    options = services()["frontend"]["logging"]["options"]
    return f"{options['max-file']} files of {options['max-size']}", "the kubelet's `containerLogMaxSize`", _SAME


def _end() -> tuple[str, str, str]:
    grace = _in_compose(lambda service: service["stop_grace_period"].removesuffix("s") + " s")
    unit = _unit()["Service"]["TimeoutStopSec"]
    return grace, f"{serving_pod()['terminationGracePeriodSeconds']} s", f"{unit}, for all containers"


def _hangs() -> tuple[str, str, str]:
    probe = containers(serving_pod())["triton"]["livenessProbe"]
    seconds = probe["periodSeconds"] * probe["failureThreshold"]
    return "reported by the health check", f"started again after {seconds} s", _SAME


def _unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DOCKER / "mixtral.service")
    return unit


_ROWS: dict[str, Callable[[], tuple[str, str, str]]] = {
    "images": _images,
    "user": _user,
    "root file system": _file_system,
    "capabilities": _capabilities,
    "new privileges": _new_privileges,
    "system calls (seccomp)": _seccomp,
    "writable": _tmp,
    "model repository": _repository,
    "memory": _memory,
    "processes": _processes,
    "inference is reached by": _triton,
    "the API is reached by": _api,
    "way out": _way_out,
    "API keys": _keys,
    "token of the cluster": _token,
    "log": _log,
    "time to end": _end,
    "a Triton that hangs": _hangs,
}


def of_page(text: str) -> str:
    """The table in the page's text."""
    return text.partition(_BEGIN)[2].partition(_END)[0].strip("\n") + "\n"


def main() -> int:
    """Write the table into the page."""
    before, begin, rest = PAGE.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, f"{PAGE.name} has no {_BEGIN!r}"
    assert end, f"{PAGE.name} has no {_END!r}"
    PAGE.write_text(f"{before}{begin}\n{table()}\n{end}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
