"""Every query of the dashboard is answered by a real Prometheus that scraped a real Triton and frontend under load."""

import hashlib
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import yaml

from tests.docker.monitoring import PROMETHEUS, Query, alerts, queries

from .conftest import SEED_MODEL, Server, free_ports, running, wait_for

BINARY = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(BINARY is None, reason="no prometheus; tests/docker/install.sh installs it")

CHAT = "/v1/chat/completions"
KEY = "sk-dashboard"
CLIENTS = 12
"""More than the tiny engine has slots."""
RATE_INTERVAL_S = 8
LOAD_S = 90.0
"""Longest time of the load."""
GPU = ("nv_gpu_", "nv_energy_")
"""Of Triton with a GPU only. tests/docker/test_monitoring.py compares these names with Triton's documentation."""


def is_of_gpu(query: Query) -> bool:
    return any(name.startswith(GPU) for name in query.metrics)


OF_ANY_MACHINE = [query for query in queries() if not is_of_gpu(query)]


@pytest.fixture(scope="module")
def server(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = tmp_path_factory.mktemp("access") / "keys"
    keys.write_text(f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()} alice\n")
    keys.chmod(0o600)
    with running(model_repository, tmp_path_factory.mktemp("run"), "--api-key-file", str(keys)) as started:
        yield started


class Prometheus:
    """Its HTTP API, while its process runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: Any) -> Any:
        assert self._process.poll() is None, f"Prometheus has ended: {self._log.read_text()[-2000:]}"
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def values(self, expr: str, at: float) -> list[float]:
        return [float(series["value"][1]) for series in self.get("query", query=expr, time=at)["result"]]

    def has_data(self, query: Query, at: float) -> bool:
        """One series at least, and none that is no number."""
        values = self.values(query.filled_in(f"{RATE_INTERVAL_S}s"), at)
        return bool(values) and not any(map(math.isnan, values))


def configuration(server: Server, directory: Path) -> Path:
    """docker/prometheus, for this server: its addresses, its key as the comments there have it, and every second."""
    shutil.copytree(PROMETHEUS, directory)
    file = directory / "prometheus.yml"
    text = file.read_text().replace("# authorization:", "authorization:")
    config = yaml.safe_load(text)
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        url = server.metrics if job["job_name"] == "triton" else server.api
        job["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    (directory / "api.key").write_text(KEY)
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    command = [str(BINARY), f"--config.file={configuration(server, directory / 'etc')}"]
    command += [f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        found = Prometheus(process, port, log)
        wait_for(found.is_ready, "Prometheus to be ready", 30)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def body(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "model": SEED_MODEL,
        "messages": [{"role": "user", "content": f"Number {number}"}],
        "max_tokens": 12,
    } | fields


def right(http: httpx.Client, number: int) -> None:
    """An answer, and a stream that its client gives up."""
    assert http.post(CHAT, json=body(number)).status_code == 200
    with http.stream("POST", CHAT, json=body(number, stream=True, max_tokens=400, ignore_eos=True)) as stream:
        next(stream.iter_raw())


def guided(http: httpx.Client, number: int) -> None:
    """Each with a guide of its own, which must be compiled."""
    assert http.post(CHAT, json=body(number, guided_choice=[f"yes {number}", "no"])).status_code == 200


def wrong(http: httpx.Client, number: int) -> None:
    """Refused by the frontend, and by the compiler of guides."""
    assert http.post(CHAT, json=body(number, temperature=9)).status_code == 400
    assert http.post(CHAT, json=body(number, guided_regex="(")).status_code == 400


def client(server: Server, work: Callable[[httpx.Client, int], None], numbers: Iterator[int], stop: Event) -> None:
    with httpx.Client(base_url=server.api, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
        while not stop.is_set():
            work(http, next(numbers))


@pytest.fixture(scope="module")
def loaded_at(server: Server, prometheus: Prometheus) -> float:
    """A time in seconds since 1970 at which the server was under load, and had been for longer than a rate needs.

    It is the first at which all queries have data, if there is one: some requests take long on a busy machine.
    """
    stop, numbers, give_up = Event(), count(), time.monotonic() + LOAD_S
    with ThreadPoolExecutor(CLIENTS) as pool:
        works = [wrong, guided, *[right] * (CLIENTS - 2)]
        clients = [pool.submit(client, server, work, numbers, stop) for work in works]
        at = time.time()
        while time.monotonic() < give_up and not all(prometheus.has_data(query, at) for query in OF_ANY_MACHINE):
            time.sleep(1)
            at = time.time()
        stop.set()
        for each in clients:
            each.result()
    return at


def test_prometheus_scrapes_both_and_evaluates_every_alert(prometheus: Prometheus, loaded_at: float) -> None:
    assert prometheus.values("up", loaded_at) == [1, 1]
    (group,) = prometheus.get("rules")["groups"]
    assert [(rule["name"], rule["health"]) for rule in group["rules"]] == [(rule["alert"], "ok") for rule in alerts()]
    assert not [alert for alert in prometheus.get("alerts")["alerts"] if alert["state"] == "firing"]


@pytest.mark.parametrize("query", OF_ANY_MACHINE, ids=lambda query: f"{query.panel}: {query.expr}"[:100])
def test_a_query_of_the_dashboard_returns_data(prometheus: Prometheus, loaded_at: float, query: Query) -> None:
    assert prometheus.has_data(query, loaded_at)


def test_only_queries_of_the_gpu_are_left_out() -> None:
    assert {query.panel for query in queries() if is_of_gpu(query)} == {
        "GPU utilization", "GPU memory", "GPU power", "GPU energy of a token",
    }  # fmt: skip


def test_the_load_is_seen(prometheus: Prometheus, loaded_at: float) -> None:
    """The figures are those of this load, not only there."""
    window = f"{RATE_INTERVAL_S}s"

    def peak(metric: str) -> float:
        return max(prometheus.values(f"max_over_time({metric}[{window}])", loaded_at))

    assert peak("vllm:num_requests_running") == 8
    assert 0 < peak("vllm:num_requests_waiting") <= CLIENTS
    assert 0 < peak("vllm:kv_cache_usage_perc") <= 1
    (refused,) = prometheus.values(f'sum(increase(frontend_errors_total{{status="400"}}[{window}]))', loaded_at)
    (answered,) = prometheus.values(f"sum(increase(vllm:request_success_total[{window}]))", loaded_at)
    assert refused > 0
    assert answered > 0
