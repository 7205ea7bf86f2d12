"""docker/haproxy.cfg, as far as it can be checked without replicas: tests/e2e/test_balancer.py has the rest."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from frontend.openai.body_size import default_max_body_bytes
from frontend.settings import Settings
from tests.benchmarks.rolling_restart.balancer import CONFIG, haproxy
from tests.docs.pages import ROOT

TEXT = CONFIG.read_text()
SECTIONS = dict(re.findall(r"^(\w+(?: \w+)?)\n((?:(?:  .*)?\n)+)", TEXT, re.MULTILINE))
SETTINGS = Settings(engine_dir=Path("/engine"))


def value(section: str, directive: str) -> str:
    (found,) = re.findall(rf"^  {directive} (.*)$", SECTIONS[section], re.MULTILINE)
    return str(found)


@pytest.mark.skipif(haproxy() is None, reason="haproxy is not installed")
def test_haproxy_accepts_it_without_a_warning(tmp_path: Path) -> None:
    environment = {**os.environ, "STATS_SOCKET": str(tmp_path / "haproxy.sock")}
    checked = subprocess.run(
        [str(haproxy()), "-c", "-f", CONFIG], env=environment, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "Configuration file is valid\n")
    assert "WARNING" not in checked.stderr


def test_both_backends_have_the_same_replicas_and_one_checks_them() -> None:
    servers = {name: re.findall(r"^  server (.*)$", SECTIONS[f"backend {name}"], re.MULTILINE) for name in
               ("replicas", "conversations")}  # fmt: skip
    assert [f"{server} no-check track replicas/{server.split()[0]}" for server in servers["replicas"]] == servers[
        "conversations"
    ]
    assert len(servers["replicas"]) == 2


def test_a_replica_that_works_on_a_silent_answer_is_not_cut_off() -> None:
    minutes = int(value("defaults", "timeout server").removesuffix("m"))
    assert 60 * minutes > SETTINGS.request_timeout_s
    assert value("global", "hard-stop-after") == value("defaults", "timeout server")


def test_requests_that_can_be_retried_hold_the_longest_prompt() -> None:
    """A larger body than the buffer is served, and not retried; docs/scale.md says so."""
    retried = int(value("global", "tune.bufsize")) - 1024
    assert 32_768 * 16 < retried < default_max_body_bytes(32_768)


def test_requests_go_to_the_replica_with_the_fewest_or_by_a_hash_that_moves_little() -> None:
    assert value("backend replicas", "balance") == "leastconn"
    assert value("backend conversations", "balance") == "hdr(X-Session-Id)"
    assert value("backend conversations", "hash-type") == "consistent"


def test_what_is_retried() -> None:
    assert value("defaults", "retry-on") == "conn-failure empty-response 503"
    assert value("defaults", "option redispatch") == "1"


def test_a_replica_that_drains_is_left_alone_while_it_still_serves() -> None:
    inter, fall = re.findall(r"inter (\d+)s fall (\d+) ", value("defaults", "default-server"))[0]
    assert 2 * int(inter) * int(fall) < SETTINGS.drain_seconds


def test_connections_are_limited_as_without_a_balancer() -> None:
    assert int(value("global", "maxconn")) == SETTINGS.max_connections
    assert f"gt {SETTINGS.max_connections_per_address} }}" in SECTIONS["frontend api"]


def test_what_the_head_of_the_file_asks_of_replicas_are_settings() -> None:
    names = re.findall(r"FRONTEND_(\w+)=", TEXT)
    assert names
    assert {name.lower() for name in names} <= set(Settings.__dataclass_fields__)
    assert (ROOT / "docs" / "scale.md").exists()
