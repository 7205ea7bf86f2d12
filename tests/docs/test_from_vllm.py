"""docs/from-vllm.md is complete, and right where a machine can check it."""

import re
from collections.abc import Mapping

import pytest

from frontend import errors
from frontend.errors import FrontendError
from frontend.openai.body import Body
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.completions.types import CompletionRequest
from frontend.server.metrics import Metrics
from frontend.server.metrics_text import counts_text, values_text
from frontend.triton.kv_cache import KvCache

from .pages import ROOT, table_rows
from .parameter_table import NO_EFFECT
from .vllm import CHAT_FIELDS, COMPLETION_FIELDS, FLAGS, LATER_FIELDS, METRICS

PAGE = ROOT / "docs" / "from-vllm.md"
OPERATIONS = ROOT / "docs" / "operations.md"


def releases(rows: list[list[str]]) -> dict[str, str]:
    """What the first column names, with the release that stands behind it; a second name is a short form."""
    return {
        name: row[0].partition(" (")[2].removesuffix(")") for row in rows for name in re.findall(r"`([^`]+)`", row[0])
    }


def test_every_flag_is_there_once() -> None:
    rows = table_rows(PAGE, "## Server flags")
    assert releases(rows) == FLAGS
    assert len({row[0] for row in rows}) == len(rows)


def test_limits_are_those_of_a_config_pbtxt() -> None:
    configs = "".join(file.read_text() for file in ROOT.glob("model_repository/*/config.pbtxt"))
    named = {row[1].strip("`") for row in table_rows(PAGE, "### Limits and memory")} - {"no", "always"}
    assert named
    assert {name for name in named if f'"{name}"' not in configs and f"\n{name}:" not in configs} == set()


def test_settings_of_the_host_exist() -> None:
    host = (ROOT / "docker" / ".env").read_text()
    named = {name for row in table_rows(PAGE, "### HTTP server") for name in re.findall(r"`([A-Z_]+)`", row[1])}
    assert {name for name in named if f"\n{name}=" not in host} == {"FRONTEND_API_KEYS"}


FIELD_TABLES = {
    "### Of both endpoints": (set(CHAT_FIELDS) & set(COMPLETION_FIELDS), (ChatCompletionRequest, CompletionRequest)),
    "### Of chat only": (set(CHAT_FIELDS) - set(COMPLETION_FIELDS), (ChatCompletionRequest,)),
    "### Of completions only": (set(COMPLETION_FIELDS) - set(CHAT_FIELDS), (CompletionRequest,)),
}


@pytest.mark.parametrize("heading", FIELD_TABLES)
def test_every_field_is_there(heading: str) -> None:
    fields, _ = FIELD_TABLES[heading]
    assert releases(table_rows(PAGE, heading)) == {name: LATER_FIELDS.get(name, "") for name in fields}


def here(field: str, body: type[Body]) -> str:
    """What becomes of a field, in the words of the page."""
    if field in NO_EFFECT:
        return "no effect"
    if field in body.model_fields:
        return "yes"
    return "no" if field in body.unsupported else "ignored"


@pytest.mark.parametrize("heading", FIELD_TABLES)
def test_what_becomes_of_a_field_is_what_the_code_does(heading: str) -> None:
    _, bodies = FIELD_TABLES[heading]
    short: Mapping[str, set[str]] = {
        "GPU only": {"yes"},
        "CPU only": {"yes"},
        "0 only": {"yes"},
        "completions": {"yes", "no"},
    }
    for name, fate, _ in table_rows(PAGE, heading):
        field = name.split("`")[1]
        assert {here(field, body) for body in bodies} == short.get(fate, {fate}), field


def test_every_metric_is_there() -> None:
    found = releases(table_rows(PAGE, "## Metrics"))
    assert {name: found.pop(name) for name in METRICS} == METRICS
    assert found.keys() == releases(table_rows(PAGE, "### Metrics of later releases")).keys()


def test_every_error_is_there() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FrontendError)]
    answered = {(str(kind.status), kind.code or "null") for kind in kinds}
    assert {(row[0], row[1].strip("`")) for row in table_rows(PAGE, "## Errors")} == answered


def metrics_text(kv_cache: KvCache | None) -> str:
    metrics = Metrics("mixtral", 4096)
    return (values_text(metrics.labels, 0, 0, kv_cache) + counts_text(metrics)).decode()


def test_what_becomes_of_a_metric_is_what_the_code_does() -> None:
    kv_cache = KvCache(num_blocks=1, tokens_per_block=32, usage=0)
    text = metrics_text(kv_cache)
    reported = {row[0].split("`")[1]: row[1] in ("yes", "0") for row in table_rows(PAGE, "## Metrics")}
    assert reported == {metric: f"# TYPE {metric} " in text for metric in reported} | {"vllm:cache_config_info": True}
    assert "vllm:cache_config_info{" in text


def test_what_only_this_server_has_is_there() -> None:
    text = metrics_text(None)
    documented = {row[0].strip("`") for row in table_rows(OPERATIONS, "## Metrics")}
    own = set(re.findall(r"^# TYPE (frontend_\w+) ", text, re.MULTILINE))
    assert documented == own | {"process_..."}
