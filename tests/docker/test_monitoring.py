"""Grafana's dashboard and Prometheus' alerts: valid, tested, and about metrics that exist.

tests/e2e/test_dashboard.py has the dashboard's queries answered by a Prometheus that scraped a real run.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from frontend.server.metrics import Metrics
from frontend.server.metrics_text import counts_text, values_text
from frontend.triton.kv_cache import KvCache
from tests.docker.monitoring import DASHBOARD, PROMETHEUS, alerts, dashboard, metrics_of, queries
from tests.docker.project import DOCKER, ROOT, services

PROMTOOL = shutil.which("promtool")
ALERT_TESTS = ROOT / "tests" / "docker" / "alerts_test.yml"

TRITON_METRICS = {
    # docs/user_guide/metrics.md of Triton: of models, of GPUs (DCGM), of the CPU
    "nv_inference_request_success", "nv_inference_request_failure", "nv_inference_request_duration_us",
    "nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes", "nv_gpu_power_usage",
    "nv_gpu_power_limit", "nv_energy_consumption",
    "nv_cpu_utilization", "nv_cpu_memory_used_bytes", "nv_cpu_memory_total_bytes",
    # of TensorRT-LLM's backend, and of the CPU engine under the same names
    "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics",
}  # fmt: skip
PROMETHEUS_METRICS = {"up", "ALERTS"}

with_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool; tests/docker/install.sh installs it")


def frontend_metrics() -> set[str]:
    """Every name of the frontend's series; a family without labelled series yet has its name in the comments."""
    metrics, kv_cache = Metrics("m", 4096), KvCache(num_blocks=1, tokens_per_block=32, usage=0)
    text = (values_text(metrics.labels, 0, 0, kv_cache) + counts_text(metrics)).decode()
    counters_and_gauges = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    return counters_and_gauges | set(re.findall(r"^([\w:]+)[{ ]", text, re.MULTILINE)) | {"vllm:request_success_total"}


def promtool(*arguments: str | Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@with_promtool
def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", PROMETHEUS / "alerts.yml")
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@with_promtool
def test_alerts_fire_when_they_should_and_not_else() -> None:
    assert "SUCCESS" in promtool("test", "rules", ALERT_TESTS)


def test_every_alert_is_tested_for_firing_and_for_silence() -> None:
    cases = [case for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    names = {alert["alert"] for alert in alerts()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_happens_and_what_to_do(alert: Mapping[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"].keys() == {"summary", "action"}
    assert "{{" in alert["annotations"]["summary"], "it names the server"


def test_queries_and_alerts_use_metrics_that_exist() -> None:
    existing = frontend_metrics() | TRITON_METRICS | PROMETHEUS_METRICS
    used = {name for query in queries() for name in query.metrics}
    used |= {name for alert in alerts() for name in metrics_of(str(alert["expr"]))}
    assert used <= existing
    assert used >= TRITON_METRICS, "listed here and not used"
    assert all(query.metrics for query in queries())


def test_every_panel_is_in_its_place() -> None:
    panels = dashboard()["panels"]
    cells = [
        (column, line)
        for place in (panel["gridPos"] for panel in panels)
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells), "two panels overlap"
    assert max(column for column, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_dashboard_is_provisioned_with_its_data_source() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    used = {panel["datasource"]["uid"] for panel in dashboard()["panels"] if panel["type"] != "row"}
    assert used == {source["uid"]}
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "mixtral.yml").read_text())["providers"]
    grafana = services()["grafana"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"


def test_grafana_has_no_account_and_lets_everyone_look() -> None:
    environment = services()["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert (environment["GF_AUTH_DISABLE_LOGIN_FORM"], environment["GF_AUTH_BASIC_ENABLED"]) == ("true", "false")
    assert not [name for name in environment if "ADMIN_USER" in name or "PASSWORD" in name]
