"""SageMaker's names: `/ping`, and `/invocations` for conversations and completions."""

from typing import Any

import httpx
import pytest

from tests.frontend.conftest import CHAT, MODEL, body, error_of
from tests.frontend.fake_triton import Events, FakeTriton

COMPLETION = {"model": MODEL, "prompt": "Hi"}
VOLATILE = ("id", "created")


@pytest.mark.parametrize(("path", "fields"), [(CHAT, body(seed=1)), ("/v1/completions", {**COMPLETION, "seed": 1})])
def test_an_invocation_is_answered_as_the_route_of_its_body(
    http: httpx.Client, triton: FakeTriton, path: str, fields: dict[str, Any]
) -> None:
    triton.script = [Events([[6004], [21209]])]
    answers = [http.post(route, json=fields).json() for route in (path, "/invocations")]
    assert [[answer.pop(name) for name in VOLATILE] for answer in answers]
    assert answers[0] == answers[1]
    assert triton.requests[0] == triton.requests[1]
    assert http.post("/invocations", json={**fields, "stream": True}).text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        (body(temperature=3), "temperature"),
        ({**COMPLETION, "prompt": 3}, "prompt"),
        ({**COMPLETION, "best_of": 2}, "best_of"),
    ],
)
def test_an_invalid_invocation_is_refused_by_field(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    assert error_of(http.post("/invocations", json=fields), 400)["param"] == param


def test_unknown_fields_of_an_invocation_are_named(http: httpx.Client) -> None:
    assert http.post("/invocations", json=body(foo=1)).headers["x-ignored-params"] == "foo"


def test_ping_is_health_and_needs_no_key(guarded: httpx.Client, triton: FakeTriton) -> None:
    assert guarded.get("/ping").status_code == 200
    triton.ready = False
    assert guarded.get("/ping").status_code == 503
    error_of(guarded.post("/invocations", json=body()), 401)
