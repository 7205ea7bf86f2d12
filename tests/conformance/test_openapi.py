"""The server answers as /openapi.json describes: schemathesis calls every operation, with valid and invalid input."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy
from jsonschema import Draft202012Validator, ValidationError
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
from tests.frontend.fake_triton import Events

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
"""Of schemathesis, without `positive_data_acceptance`: a body that fits its schema may still be refused, because it
exceeds the context or because two of its fields exclude each other."""

BODY = ["200", "400", "401", "404", "413", "415", "429", "500"]
STATUSES = {
    f"POST {CHAT}": [*BODY, "503", "504"],
    "POST /v1/completions": [*BODY, "503", "504"],
    "POST /v1/responses": [*BODY, "503", "504"],
    "GET /v1/responses/{response_id}": ["200", "400", "401", "404", "500"],
    "DELETE /v1/responses/{response_id}": ["200", "400", "401", "404", "500"],
    "GET /v1/responses/{response_id}/input_items": ["200", "400", "401", "404", "500"],
    "POST /v1/responses/{response_id}/cancel": ["200", "400", "401", "404", "500"],
    "POST /v1/messages": [*BODY, "503", "504"],
    "POST /v1/messages/count_tokens": BODY,
    "POST /invocations": [*BODY, "503", "504"],
    f"POST {CHAT}/render": BODY,
    "POST /tokenize": BODY,
    "POST /detokenize": BODY,
    "GET /v1/models": ["200", "401", "500"],
    "GET /v1/models/{model}": ["200", "401", "404", "500"],
    "GET /version": ["200", "401", "500"],
    "GET /tokenizer_info": ["200", "401", "500"],
    "GET /load": ["200", "401", "500"],
    "GET /ping": ["200", "503"],
    "GET /health": ["200", "503"],
    "GET /health/ready": ["200", "503"],
    "GET /health/live": ["200"],
    "GET /health/generate": ["200", "401", "500", "503"],
    "GET /metrics": ["200", "401", "500"],
}
"""Every operation, and each status with which it can answer."""

GENERATING = [f"POST {CHAT}", "POST /v1/completions", "POST /v1/responses", "POST /v1/messages", "POST /invocations"]
"""The operations that answer with JSON or, with `stream`, with server-sent events."""

STREAM_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
    "additionalProperties": False,
}
"""A server-sent event, as schemathesis parses it."""

Answer = Callable[[Case[Any]], int]
"""Sends a case, checks the response against the document, and returns its status."""


@pytest.fixture
def document(http: httpx.Client) -> dict[str, Any]:
    """/openapi.json."""
    content: dict[str, Any] = http.get("/openapi.json").json()
    return content


def operations(document: dict[str, Any]) -> dict[str, Any]:
    """Each operation by method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def example_of(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The documented body of an operation; None if it takes no body."""
    request: dict[str, Any] = operations(document)[name].get("requestBody", {})
    body: dict[str, Any] | None = request["content"]["application/json"]["example"] if request else None
    return body


def operation_of(document: dict[str, Any], name: str) -> Any:
    """An operation as schemathesis calls it.

    schemathesis takes the schema of `text/event-stream` for that of each event. In OpenAPI 3.1 it is that of the text,
    so it is replaced here.
    """
    for generating in GENERATING:
        operations(document)[generating]["responses"]["200"]["content"]["text/event-stream"]["schema"] = STREAM_EVENT
    method, path = name.split()
    return schemathesis.openapi.from_dict(document)[path][method]


def documented_cases(document: dict[str, Any], name: str) -> Iterator[Case[Any]]:
    """The documented example, and the same as a stream where the operation streams."""
    operation, body = operation_of(document, name), example_of(document, name)
    if body is None:
        yield operation.Case(path_parameters={"model": "mixtral"} if "{model}" in name else None)
        return
    for fields in ({}, {"stream": True}) if name in GENERATING else ({},):
        yield operation.Case(body=body | fields, media_type="application/json")


def statuses_of(cases: SearchStrategy[Case[Any]], answer: Answer) -> set[int]:
    """The statuses with which 20 generated cases are answered."""
    seen: set[int] = set()

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def send(case: Case[Any]) -> None:
        seen.add(answer(case))

    send()
    return seen


@pytest.fixture
def answer(frontend: Running) -> Answer:
    """Of a frontend whose engine generates two tokens."""
    frontend.triton.script = [Events([[6004], [21209]])]

    def send(case: Case[Any]) -> int:
        response = case.call(base_url=frontend.url)
        # A generated list may be longer than any body: 413 refuses it too, and schemathesis does not count that.
        checks = [check for check in CHECKS if check is not negative_data_rejection or response.status_code != 413]
        case.validate_response(response, checks=checks)
        return response.status_code

    return send


@pytest.mark.parametrize("name", [name for name in STATUSES if "{response_id}" not in name])
def test_documented_examples_are_answered_200(answer: Answer, document: dict[str, Any], name: str) -> None:
    assert {answer(case) for case in documented_cases(document, name)} == {200}


@pytest.mark.parametrize("name", STATUSES)
def test_valid_input_is_answered_as_documented(answer: Answer, document: dict[str, Any], name: str) -> None:
    """Not always with 200, see CHECKS: all 20 generated chat bodies may be refused."""
    cases = operation_of(document, name).as_strategy(generation_mode=GenerationMode.POSITIVE)
    assert statuses_of(cases, answer)


@pytest.mark.parametrize("name", [name for name in STATUSES if name.startswith("POST") and "cancel" not in name])
def test_invalid_input_is_refused_as_documented(answer: Answer, document: dict[str, Any], name: str) -> None:
    cases = operation_of(document, name).as_strategy(generation_mode=GenerationMode.NEGATIVE)
    body_errors = body_validator(document, name).iter_errors
    refused = cases.filter(lambda case: not (errors := [*body_errors(case.body)]) or not all(map(is_lenient, errors)))
    assert 200 not in statuses_of(refused, answer)


def body_validator(document: dict[str, Any], name: str) -> Draft202012Validator:
    """Of the JSON body of an operation such as `POST /tokenize`."""
    schema = operations(document)[name]["requestBody"]["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": document["components"]})


def is_lenient(error: ValidationError) -> bool:
    """Whether a number or boolean is written as another scalar, such as "5" or true for 1: accepted, as by vLLM."""
    if error.validator == "type":
        return error.validator_value in ("integer", "number", "boolean") and not isinstance(error.instance, dict | list)
    branches: dict[Any, list[ValidationError]] = {}
    for each in error.context or ():
        branches.setdefault(each.schema_path[0], []).append(each)
    return any(all(map(is_lenient, branch)) for branch in branches.values())


def test_examples_name_the_served_model(document: dict[str, Any]) -> None:
    examples = [example_of(document, name) for name in STATUSES]
    assert {example["model"] for example in examples if example} == {MODEL}


def test_documented_statuses_are_the_possible_ones(document: dict[str, Any]) -> None:
    assert {name: sorted(operation["responses"]) for name, operation in operations(document).items()} == STATUSES
    assert "422" not in json.dumps(document)


def test_operations_that_generate_are_documented_to_stream(document: dict[str, Any]) -> None:
    types = {name: set(of["responses"]["200"].get("content", ())) for name, of in operations(document).items()}
    both = {"application/json", "text/event-stream"}
    assert [name for name in STATUSES if types[name] == both] == GENERATING
