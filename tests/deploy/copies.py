"""Files of deploy/ that are made of others: kustomize reads no file outside of its folder.

`python -m tests.deploy.copies` writes them.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.deploy.manifests import DEPLOY, ROOT

LIMITS = ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt"
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"

_RULE_HEAD = """\
# The alerts of docker/prometheus/alerts.yml, written by `python -m tests.deploy.copies`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: mixtral
spec:
"""


def _limits() -> str:
    return LIMITS.read_text()


def _alerts() -> str:
    rules = yaml.safe_dump(yaml.safe_load(ALERTS.read_text()), sort_keys=False, width=120)
    return _RULE_HEAD + "".join(f"  {line}\n" for line in rules.splitlines())


COPIES: dict[Path, Callable[[], str]] = {
    DEPLOY / "engine" / "config.pbtxt": _limits,
    DEPLOY / "components" / "monitoring" / "alerts.yaml": _alerts,
}
"""What each file must hold."""


def main() -> int:
    """Write all of them."""
    for file, content in COPIES.items():
        file.write_text(content())
    return 0


if __name__ == "__main__":
    sys.exit(main())
