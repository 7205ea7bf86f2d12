"""What /openapi.json promises is kept: schemathesis tries every operation, with what fits and what does not."""

import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.frontend.conftest import CHAT, MODEL, Running
from tests.frontend.fake_triton import Events, FakeTriton

KEPT = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
"""Not that every body which fits its schema is answered 200: a context is full, or two wishes exclude each other."""


BODY = ["200", "400", "401", "404", "413", "415", "429", "500"]
STATUSES = {
    f"POST {CHAT}": [*BODY, "503", "504"],
    "POST /v1/completions": [*BODY, "503", "504"],
    "POST /v1/responses": [*BODY, "503", "504"],
    f"POST {CHAT}/render": BODY,
    "POST /tokenize": BODY,
    "POST /detokenize": BODY,
    "GET /v1/models": ["200", "401", "500"],
    "GET /v1/models/{model}": ["200", "401", "404", "500"],
    "GET /version": ["200", "401", "500"],
    "GET /health": ["200", "503"],
    "GET /health/ready": ["200", "503"],
    "GET /health/live": ["200"],
    "GET /health/generate": ["200", "401", "500", "503"],
    "GET /metrics": ["200", "401", "500"],
}
"""Of each operation, those that it can have."""


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, GenerationMode.POSITIVE) for name in STATUSES]
    + [(name, GenerationMode.NEGATIVE) for name in STATUSES if name.startswith("POST")],
    ids=str,
)
def test_promises(frontend: Running, document: dict[str, Any], name: str, mode: GenerationMode) -> None:
    api = schemathesis.openapi.from_dict(document)
    api.config.update(base_url=frontend.url)
    method, path = name.split()
    operation = api[path][method]
    seen: set[int] = set()

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def try_it(case: Case[Any]) -> None:
        seen.add(case.call_and_validate(checks=KEPT).status_code)

    frontend.triton.script = [Events([[6004], [21209]])]
    try_it()
    assert mode is GenerationMode.POSITIVE or 200 not in seen


@pytest.mark.parametrize("name", STATUSES)
def test_what_is_documented_as_an_example_is_answered(
    http: httpx.Client, frontend: Running, document: dict[str, Any], name: str
) -> None:
    frontend.triton.script = [Events([[6004], [21209]])]
    method, path = name.split()
    body = operations(document)[name].get("requestBody", {}).get("content", {}).get("application/json", {})
    answer = http.request(method, path.replace("{model}", "mixtral"), json=body.get("example"))
    assert answer.status_code == 200


@pytest.fixture
def document(http: httpx.Client) -> dict[str, Any]:
    """The document."""
    answer: dict[str, Any] = http.get("/openapi.json").json()
    return answer


def operations(document: dict[str, Any]) -> dict[str, Any]:
    """Each operation by method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_statuses_are_those_that_can_be(document: dict[str, Any]) -> None:
    assert {name: sorted(operation["responses"]) for name, operation in operations(document).items()} == STATUSES
    assert "422" not in json.dumps(document)


def test_streams_are_said_to_be_streams(document: dict[str, Any]) -> None:
    answers = {name: set(of["responses"]["200"].get("content", ())) for name, of in operations(document).items()}
    both = {"application/json", "text/event-stream"}
    assert {name for name, types in answers.items() if types == both} == {
        f"POST {CHAT}",
        "POST /v1/completions",
        "POST /v1/responses",
    }


def test_examples_work(http: httpx.Client, triton: FakeTriton, document: dict[str, Any]) -> None:
    bodies = {
        name: operation["requestBody"]["content"]["application/json"]["example"]
        for name, operation in operations(document).items()
        if name.startswith("POST")
    }
    answers = {name: http.request(*name.split(), json=body).status_code for name, body in bodies.items()}
    assert answers == dict.fromkeys(bodies, 200)
    assert {body["model"] for body in bodies.values()} == {MODEL}
