"""API keys, the limits of each caller, and pages of other origins."""

import asyncio
import io
import logging
import time
from collections.abc import Coroutine
from typing import Any

import httpx
import limits
import openai
import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.server.caller_limits import CallerLimits
from frontend.server.middleware.api_keys import read_api_keys
from frontend.server.middleware.auth import Auth
from frontend.server.middleware.request_records import RequestRecords
from frontend.server.request_log import log_answer
from tests.frontend.conftest import API_KEY, CHAT, MODEL, ORIGIN, Running, body, error_of
from tests.frontend.fake_triton import Endless, Events, FakeTriton

KEY = {"authorization": f"Bearer {API_KEY}"}
HAUS = Events([[6004], [21209]])
CLOSED = [
    ("GET", "/v1/models"),
    ("GET", f"/v1/models/{MODEL}"),
    ("POST", CHAT),
    ("GET", "/version"),
    ("GET", "/health/generate"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
    ("DELETE", CHAT),
    ("GET", "/health/../v1/models"),
    ("GET", "/health/"),
    ("OPTIONS", "/v1/models"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {API_KEY}"}])
def test_without_a_key_every_route_is_401(
    guarded: httpx.Client, triton: FakeTriton, method: str, path: str, headers: dict[str, str]
) -> None:
    response = guarded.request(method, path, headers=headers, json=body() if method == "POST" else None)
    error = error_of(response, 401)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-request-id"]
    assert triton.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("POST", CHAT, 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nothing", 404),
        ("GET", CHAT, 405),
    ],
)
def test_with_the_key_every_route_answers_as_usual(guarded: httpx.Client, method: str, path: str, status: int) -> None:
    sent = body() if method == "POST" else None
    assert guarded.request(method, path, headers=KEY, json=sent).status_code == status


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_checks_need_no_key_and_have_no_body(guarded: httpx.Client, path: str) -> None:
    response = guarded.get(path)
    assert (response.status_code, response.content) == (200, b"")


def test_openais_client_sends_the_key_and_raises_its_own_errors(frontend: Running, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    messages: Any = body()["messages"]
    with openai.OpenAI(base_url=f"{frontend.guarded_url}/v1", api_key=API_KEY, max_retries=0) as client:
        answer = client.chat.completions.create(model=MODEL, messages=messages)
        assert answer.choices[0].message.content == " Ein Haus"
    with (
        openai.OpenAI(base_url=f"{frontend.guarded_url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("key", [API_KEY, "wrong-key"])
def test_keys_are_not_logged(guarded: httpx.Client, caplog: pytest.LogCaptureFixture, key: str) -> None:
    caplog.set_level(logging.DEBUG)
    guarded.post(CHAT, json=body(), headers={"authorization": f"Bearer {key}"})
    ours = [record for record in caplog.records if record.name.startswith(("frontend", "uvicorn"))]
    assert ours
    assert key not in " ".join(record.getMessage() for record in ours)


@pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, ORIGIN), ("https://evil.example.org", None)])
@pytest.mark.parametrize(
    ("sent", "status"), [(body(), 200), (body(stream=True), 200), (body(model="x"), 404), (body(stream=True, n=0), 400)]
)
def test_page_may_read_replies_and_errors_if_its_origin_is_allowed(
    guarded: httpx.Client, origin: str, allowed: str | None, sent: dict[str, Any], status: int
) -> None:
    response = guarded.post(CHAT, json=sent, headers={**KEY, "origin": origin})
    assert (response.status_code, response.headers.get("access-control-allow-origin")) == (status, allowed)
    assert "origin" in response.headers["vary"].lower()


def test_page_may_read_that_its_key_is_wrong(guarded: httpx.Client) -> None:
    assert guarded.post(CHAT, json=body(), headers={"origin": ORIGIN}).headers["access-control-allow-origin"] == ORIGIN


def test_page_may_read_a_stream_that_has_not_ended(guarded: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Endless(6004)]
    with guarded.stream("POST", CHAT, json=body(stream=True), headers={**KEY, "origin": ORIGIN}) as response:
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in response.headers["access-control-expose-headers"]
        assert '"role":"assistant"' in next(response.iter_lines())


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_preflight_request_needs_no_key(guarded: httpx.Client, method: str) -> None:
    preflight = {"origin": ORIGIN, "access-control-request-method": method}
    preflight["access-control-request-headers"] = "authorization, content-type, x-stainless-lang"
    response = guarded.options(CHAT, headers=preflight)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "authorization" in response.headers["access-control-allow-headers"]
    assert guarded.options(CHAT, headers={**preflight, "origin": "https://evil.example.org"}).status_code == 400


def test_no_origin_is_allowed_by_default(http: httpx.Client) -> None:
    response = http.post(CHAT, json=body(), headers={"origin": ORIGIN})
    assert not [name for name in response.headers if name.startswith("access-control")]


# ---- Limits, in front of a route that answers with the caller's name ------------------------------------------------


class Route:
    """Answers with the caller's name once `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.go.wait()
        await JSONResponse(scope["state"]["caller"])(scope, receive, send)


def client(app: ASGIApp, key: str | None = None, address: str = "10.0.0.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, client=(address, 1)),
        base_url="http://frontend",
        headers={"authorization": f"Bearer {key}"} if key else {},
    )


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def stop_the_clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(time, "time", lambda: now)


def test_caller_is_the_keys_name_or_the_clients_address() -> None:
    async def scenario() -> None:
        keys = read_api_keys(None, ["a"])
        assert (await client(Auth(Route(), keys, CallerLimits()), "a").get("/x")).json() == keys[0].name
        assert (await client(Auth(Route(), (), CallerLimits())).get("/x")).json() == "10.0.0.1"

    run(scenario())


@pytest.mark.parametrize("by_key", [True, False])
def test_each_caller_has_its_own_rate_and_gets_retry_after(monkeypatch: pytest.MonkeyPatch, by_key: bool) -> None:
    async def scenario() -> None:
        rate = CallerLimits(limits.parse("2/minute"))
        app = Auth(Route(), read_api_keys(None, ["a", "b"]) if by_key else (), rate)
        first, second = (
            (client(app, "a"), client(app, "b")) if by_key else (client(app), client(app, address="10.0.0.2"))
        )
        stop_the_clock(monkeypatch, 6010.0)
        assert [(await first.post("/x")).status_code for _ in range(2)] == [200, 200]
        refused = await first.post("/x")
        error = error_of(refused, 429)
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert "2 per 1 minute" in error["message"]
        assert (await second.post("/x")).status_code == 200
        wait_s = int(refused.headers["retry-after"])
        assert wait_s == 51
        stop_the_clock(monkeypatch, 6010.0 + wait_s)
        assert (await first.post("/x")).status_code == 200

    run(scenario())


def test_get_requests_do_not_count() -> None:
    async def scenario() -> None:
        app = client(Auth(Route(), (), CallerLimits(limits.parse("1/day"), max_requests=1)))
        assert [(await app.get("/x")).status_code for _ in range(3)] == [200, 200, 200]

    run(scenario())


def test_wrong_keys_do_not_use_up_the_rate_of_a_caller() -> None:
    async def scenario() -> None:
        app = Auth(Route(), read_api_keys(None, ["a"]), CallerLimits(limits.parse("1/day")))
        assert [(await client(app, "b").post("/x")).status_code for _ in range(2)] == [401, 401]
        assert (await client(app, "a").post("/x")).status_code == 200

    run(scenario())


def test_caller_may_have_max_requests_at_a_time() -> None:
    async def scenario() -> None:
        route = Route()
        app = Auth(route, read_api_keys(None, ["a", "b"]), CallerLimits(max_requests=2))
        route.go.clear()
        running = [asyncio.create_task(client(app, "a").post("/x")) for _ in range(2)]
        other = asyncio.create_task(client(app, "b").post("/x"))
        await asyncio.sleep(0.05)
        refused = await client(app, "a").post("/x")
        assert error_of(refused, 429)["code"] == "rate_limit_exceeded"
        assert refused.headers["retry-after"] == "1"
        running[0].cancel()
        await asyncio.gather(running[0], return_exceptions=True)
        again = asyncio.create_task(client(app, "a").post("/x"))
        await asyncio.sleep(0.05)
        route.go.set()
        assert [(await task).status_code for task in (running[1], other, again)] == [200, 200, 200]

    run(scenario())


@pytest.mark.parametrize("order", [(API_KEY, "wrong"), ("wrong", API_KEY), (API_KEY, API_KEY)])
def test_two_authorization_headers_are_refused_in_any_order(guarded: httpx.Client, order: tuple[str, str]) -> None:
    headers = [("authorization", f"Bearer {key}") for key in order]
    assert "Several Authorization headers" in error_of(guarded.get("/v1/models", headers=headers), 401)["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("x-api-key", API_KEY)], 200),
        ([("x-api-key", "wrong")], 401),
        ([("x-api-key", API_KEY), ("x-api-key", API_KEY)], 401),
        ([("x-api-key", "of a proxy"), ("authorization", f"Bearer {API_KEY}")], 200),
        ([("x-api-key", API_KEY), ("authorization", "Bearer wrong")], 401),
    ],
)
def test_x_api_key_counts_where_there_is_no_authorization(
    guarded: httpx.Client, headers: list[tuple[str, str]], status: int
) -> None:
    assert guarded.get("/v1/models", headers=headers).status_code == status


def test_no_answer_redirects_to_what_the_host_header_names(http: httpx.Client) -> None:
    for path in ("/v1/models/", "/health/", f"{CHAT}/", "//evil.example.org/v1/models/"):
        response = http.request(
            "GET", http.base_url.copy_with(raw_path=path.encode()), headers={"host": "evil.example.org"}
        )
        assert "location" not in response.headers
        error_of(response, 404)


def test_lines_of_limits_name_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "frontend")

    async def scenario() -> None:
        keys = read_api_keys(None, ["a"])
        app = RequestRecords(Auth(Route(), keys, CallerLimits(limits.parse("1/day"))), [log_answer])
        for _ in range(2):
            await client(app, "a").post("/x")
        assert f"POST /x from {keys[0].name}: 429 You have sent more requests" in caplog.text

    run(scenario())


def test_request_over_the_rate_does_not_count_as_concurrent() -> None:
    async def scenario() -> None:
        counts = CallerLimits(limits.parse("1/day"), max_requests=1)
        app = client(Auth(Route(), (), counts))
        texts = [(await app.post("/x")).text for _ in range(3)]
        assert "1 per 1 day" in texts[1]
        assert "1 per 1 day" in texts[2]

    run(scenario())


def test_refusals_are_logged_with_their_path_which_cannot_forge_a_line() -> None:
    lines = io.StringIO()
    handler, logger = logging.StreamHandler(lines), logging.getLogger("frontend.server.request_log")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    async def scenario() -> None:
        auth = Auth(Route(), read_api_keys(None, ["a"]), CallerLimits())
        await client(RequestRecords(auth, [log_answer])).get("/x%0Aforged")

    try:
        run(scenario())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert lines.getvalue().startswith("GET /x%0Aforged from 10.0.0.1: 401 No API key was given.")
