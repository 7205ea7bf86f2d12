"""What docker/grafana and docker/prometheus ask Prometheus for."""

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from tests.docker.project import DOCKER

PROMETHEUS = DOCKER / "prometheus"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "mixtral.json"

_METRICS = re.compile(r"\b(?:vllm:|frontend_|nv_|process_)\w+|\bup\b|\bALERTS\b")


@dataclass(frozen=True)
class Query:
    """One line of a panel, in PromQL with Grafana's variables."""

    panel: str
    expr: str

    @property
    def metrics(self) -> set[str]:
        """The names of the series that it reads."""
        return metrics_of(self.expr)

    def filled_in(self, interval: str) -> str:
        """As Grafana sends it, for all instances."""
        return self.expr.replace("$__rate_interval", interval).replace("$instance", ".*")


def metrics_of(expr: str) -> set[str]:
    return set(_METRICS.findall(expr))


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_bytes())
    return read


def queries() -> list[Query]:
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    return [Query(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules
