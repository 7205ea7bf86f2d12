"""The compose project as docker compose reads it: with its settings filled in and its anchors resolved."""

import re
from pathlib import Path
from typing import Any

import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
SAMPLING = {"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
"""Variables of the frontend's containers that OpenTelemetry's SDK reads, not the frontend."""


def settings() -> dict[str, str]:
    lines = (DOCKER / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def read_compose(name: str) -> dict[str, Any]:
    """A compose file, checked against the compose specification, which allows no unknown keys.

    Every variable must be in .env, and one that is written ${NAME:?} must have a value there.
    """
    known = settings()
    text = re.sub(r"\$\{(\w+):\?\}", lambda variable: known[variable[1]] or "$", (DOCKER / name).read_text())
    text = re.sub(r"\$\{(\w+)\?\}", lambda variable: known[variable[1]], text)
    assert "$" not in text, f"{name} uses a variable in another way than ${{NAME:?}} or ${{NAME?}}, or without a value"
    content: dict[str, Any] = yaml.safe_load(text)
    PyCompose.from_yaml(yaml.safe_dump(content))
    return content


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_compose("compose.yaml")["services"]
    return found
