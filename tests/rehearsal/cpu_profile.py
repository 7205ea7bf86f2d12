"""PROFILE=cpu,metrics under a real Docker daemon, from `make images` to `make down`. Run by `make rehearsal`."""

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from build_engine.manifest import read_manifest
from tests.docker.monitoring import alerts
from tests.docker.project import services, settings
from tests.rehearsal.api import Api
from tests.rehearsal.checkout import PROJECT, Checkout, say
from tests.rehearsal.containers import REACHED, Containers, wait_for

pytestmark = pytest.mark.timeout(900)
PROFILE = "PROFILE=cpu,metrics"
TRITON, FRONTEND, PROMETHEUS, GRAFANA = "triton-cpu", "frontend-cpu", "prometheus", "grafana"
ENGINE = "model_repository/openvino/1/engine"
UNITS = {"g": 2**30, "m": 2**20}
RECOVERY_S = 60
GRACE_S = 45
"""stop_grace_period of compose.yaml."""


@pytest.fixture(scope="module", autouse=True)
def project(checkout: Checkout, checkpoint: Path) -> Iterator[None]:
    """The commands of the README, in their order, but for the name of the checkpoint."""
    checkout.make("cpu-engine", f"CHECKPOINT={checkpoint}")
    stand_ins = ["docker", "compose", "-f", "tests/rehearsal/images/compose.yaml", "build", PROMETHEUS, GRAFANA]
    checkout.run("images of Prometheus and Grafana", stand_ins)
    checkout.make("images", PROFILE)
    checkout.make("up", PROFILE)
    yield
    checkout.make("down")
    checkout.docker("volume", "rm", "--force", f"{PROJECT}_prometheus")


def test_make_up_returns_when_all_services_are_healthy(containers: Containers, api: Api) -> None:
    assert containers.running() == {TRITON, FRONTEND, PROMETHEUS, GRAFANA}
    assert {containers.health(service) for service in containers.running()} == {"healthy"}
    assert api.status() == 200


def test_the_request_of_the_readme_is_answered(api: Api) -> None:
    answer = api.chat(max_tokens=24)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]


def test_prometheus_scrapes_triton_and_the_frontend() -> None:
    def both_up() -> bool:
        targets = httpx.get("http://127.0.0.1:9090/api/v1/targets").json()["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets} == {"triton": "up", "frontend": "up"}

    wait_for(both_up, "Prometheus to scrape both", 30)


def test_prometheus_has_loaded_every_alert() -> None:
    groups = httpx.get("http://127.0.0.1:9090/api/v1/rules").json()["data"]["groups"]
    assert [rule["name"] for group in groups for rule in group["rules"]] == [alert["alert"] for alert in alerts()]


def test_grafana_reads_its_files_and_reaches_prometheus_but_not_triton(checkout: Checkout) -> None:
    name = f"{PROJECT}-{GRAFANA}-1"
    files = httpx.get("http://127.0.0.1:3000/grafana/dashboards/").text
    assert "mixtral.json" in files
    assert checkout.docker("exec", name, "wget", "-qO-", "http://prometheus:9090/-/ready").stdout
    lookup = "import socket\ntry: print(socket.getaddrinfo('triton', 8000))\nexcept OSError: print('none')"
    assert checkout.docker("exec", name, "python3", "-c", lookup).stdout.strip() == "none"


def test_the_frontend_and_prometheus_reach_triton(containers: Containers, checkout: Checkout) -> None:
    assert containers.connect(FRONTEND, "triton", 8000) == REACHED
    assert containers.connect(FRONTEND, "triton", 8002) == REACHED
    name = f"{PROJECT}-{PROMETHEUS}-1"
    assert "nv_inference_count" in checkout.docker("exec", name, "wget", "-qO-", "http://triton:8002/metrics").stdout


def test_triton_opens_only_inference_and_metrics(containers: Containers) -> None:
    assert "refused" in containers.connect(FRONTEND, "triton", 8001)
    assert containers.inspect(TRITON)["NetworkSettings"]["Ports"] in ({}, {"8000/tcp": None, "8002/tcp": None})


def test_triton_has_no_way_out_and_the_frontend_has_one(containers: Containers) -> None:
    """Tried with a port of this machine: the frontend reaches it, Triton does not, at any address of the machine."""
    edge = containers.gateway("edge")
    with socket.create_server(("", 0)) as outside:
        port = outside.getsockname()[1]
        assert containers.connect(FRONTEND, edge, port) == REACHED
        assert containers.connect(TRITON, edge, port) != REACHED
        assert containers.connect(TRITON, containers.gateway("inference"), port) != REACHED
    assert containers.connect(TRITON, containers.address(FRONTEND, "edge"), 8000) != REACHED


def test_nothing_else_is_on_tritons_network(containers: Containers) -> None:
    assert containers.on_network("inference") == {TRITON, FRONTEND, PROMETHEUS}
    assert containers.inspect(TRITON)["NetworkSettings"]["Networks"].keys() == {f"{PROJECT}_inference"}


@pytest.mark.parametrize("service", [TRITON, FRONTEND])
def test_containers_run_as_user_1000_without_capabilities(containers: Containers, service: str) -> None:
    status = containers.python(service, "print(open('/proc/1/status').read())")
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert fields["Uid"] == ["1000"] * 4
    assert {name: int(fields[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {
        "CapPrm": 0, "CapEff": 0, "CapBnd": 0,
    }  # fmt: skip
    assert fields["NoNewPrivs"] == ["1"]


@pytest.mark.parametrize("service", [TRITON, FRONTEND])
def test_only_tmp_can_be_written_to(containers: Containers, service: str) -> None:
    written = containers.python(
        service,
        """
        for directory in ("/", "/usr", "/var/tmp", "/model_repository", "/tmp"):
            try:
                open(f"{directory}/written", "w").close()
                print(directory)
            except OSError:
                pass
        """,
    )
    assert written == "/tmp"
    assert containers.inspect(service)["HostConfig"]["ReadonlyRootfs"] is True


@pytest.mark.parametrize("service", [TRITON, FRONTEND])
def test_limits_of_memory_and_processes_are_in_force(containers: Containers, service: str) -> None:
    """As the kernel has them, in either version of its cgroups."""
    shown = containers.python(
        service,
        """
        import pathlib
        for old, new in (("memory/memory.limit_in_bytes", "memory.max"), ("pids/pids.max", "pids.max")):
            found = [pathlib.Path("/sys/fs/cgroup", name) for name in (old, new)]
            print(next(file.read_text().strip() for file in found if file.exists()))
        """,
    )
    declared = services()[service]
    limit = declared["mem_limit"]
    assert shown.split() == [str(int(limit[:-1]) * UNITS[limit[-1]]), str(declared["pids_limit"])]


def test_killed_triton_is_restarted_and_clients_get_503_meanwhile(containers: Containers, api: Api) -> None:
    containers.kill(TRITON, "tritonserver")
    wait_for(lambda: api.chat(max_tokens=1).status_code == 503, "the frontend to answer 503", 10)
    seconds = wait_for(lambda: api.chat(max_tokens=1).status_code == 200, "an answer", RECOVERY_S)
    say(f"200 again {seconds:.0f} s after Triton was killed")
    assert containers.inspect(TRITON)["RestartCount"] == 1
    assert containers.inspect(FRONTEND)["RestartCount"] == 0


def test_a_killed_frontend_is_restarted(containers: Containers, api: Api) -> None:
    containers.kill(FRONTEND, "python")
    wait_for(lambda: api.status() != 200, "the frontend to be gone", 10)
    seconds = wait_for(lambda: api.status() == 200, "the frontend to be back", RECOVERY_S)
    say(f"200 again {seconds:.0f} s after the frontend was killed")
    assert api.chat(max_tokens=1).status_code == 200
    assert containers.inspect(FRONTEND)["RestartCount"] == 1


def test_a_newer_engine_is_published_while_the_older_one_serves(
    checkout: Checkout, newer_checkpoint: Path, api: Api
) -> None:
    assert f"published {ENGINE}" in checkout.make("cpu-engine", f"CHECKPOINT={newer_checkpoint}")
    assert read_manifest(checkout.directory / ENGINE)["checkpoint"]["path"] == str(newer_checkpoint)
    assert api.chat(max_tokens=1).status_code == 200


def test_make_down_lets_answers_end(checkout: Checkout, containers: Containers, api: Api) -> None:
    num_tokens = min(int(8 * api.tokens_per_s()), 6000)
    stream = api.stream(num_tokens)
    down = checkout.start("down")
    seconds = wait_for(lambda: down.poll() is not None, "make down", 2 * GRACE_S)
    stream.join(5)
    say(f"make down returned after {seconds:.0f} s, with an answer of {stream.num_tokens()} tokens in progress")
    assert stream.done
    assert stream.num_tokens() == num_tokens
    assert down.returncode == 0
    assert containers.running() == set()


def test_make_rollback_goes_back_to_the_older_engine(checkout: Checkout, checkpoint: Path) -> None:
    assert "start it again" in checkout.make("rollback", PROFILE)
    assert read_manifest(checkout.directory / ENGINE)["checkpoint"]["path"] == str(checkpoint)


def test_api_keys_and_https(checkout: Checkout, containers: Containers, api: Api, newer_checkpoint: Path) -> None:
    """Of the older engine, after the rollback."""
    access = checkout.directory / "docker" / "access"
    key = "sk-rehearsal"
    (access / "keys").write_text(f"sha256:{hashlib.sha256(key.encode()).hexdigest()} rehearsal\n")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=access, check=True, capture_output=True)
    os.chown(access / "key.pem", 1000, 1000)
    files = {"API_KEY_FILE": "keys", "SSL_CERTFILE": "cert.pem", "SSL_KEYFILE": "key.pem"}
    assert files.keys() <= settings().keys()
    checkout.make("up", "PROFILE=cpu", **{name: f"/access/{file}" for name, file in files.items()})
    assert containers.health(FRONTEND) == "healthy"
    https = Api(api.url.replace("http:", "https:"), api.model, certificate=access / "cert.pem")
    assert https.chat(max_tokens=1).status_code == 401
    assert https.status() == 200, "/health needs no key"
    with_key = Api(https.url, api.model, key=key, certificate=https.certificate)
    assert with_key.chat(max_tokens=1).status_code == 200, "the older engine answers under its name"
    assert replace(with_key, model=str(newer_checkpoint)).chat(max_tokens=1).status_code == 404
    assert api.status() is None, "HTTP on the port of HTTPS"
