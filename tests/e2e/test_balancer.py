"""docs/scale.md: what HAProxy with docker/haproxy.cfg promises clients, in front of two replicas on one engine."""

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.benchmarks.rolling_restart.__main__ import Farm, farm, observe, problems
from tests.benchmarks.rolling_restart.balancer import haproxy
from tests.benchmarks.rolling_restart.clients import End, Load
from tests.benchmarks.rolling_restart.replicas import Replica
from tests.e2e.conftest import MAX_BATCH_SIZE, SEED_MODEL, wait_for

pytestmark = pytest.mark.skipif(haproxy() is None, reason="haproxy is not installed")

CHAT = "/v1/chat/completions"
QUEUE = 4


@pytest.fixture(scope="module")
def replicas(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Shared by all tests; each leaves both replicas running. HAProxy's user must be able to reach its chroot only."""
    with farm(model_repository, tmp_path_factory.mktemp("balancer"), "--max-queue-length", str(QUEUE)) as running:
        yield running


def body(**fields: object) -> dict[str, object]:
    return {"model": SEED_MODEL, "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": True, **fields}


def ask(farm: Farm, *, headers: dict[str, str] | None = None, **fields: object) -> httpx.Response:
    return httpx.post(farm.balancer.url + CHAT, json=body(**fields), headers=headers, timeout=60)


def log_of(replica: Replica) -> str:
    assert replica.server is not None
    return replica.server.output()


def test_tokens_arrive_one_by_one(replicas: Farm) -> None:
    with httpx.stream("POST", replicas.balancer.url + CHAT, json=body(max_tokens=100, stream=True)) as response:
        pieces = list(response.iter_raw())
    assert len(pieces) > 20
    assert pieces[-1].endswith(b"data: [DONE]\n\n")


def test_the_address_of_the_client_reaches_the_log_and_cannot_be_forged(replicas: Farm) -> None:
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Request-Id": "forged"}
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9"), headers=headers) as http:
        assert http.post(replicas.balancer.url + CHAT, json=body(max_tokens=1)).status_code == 200
    wait_for(lambda: "[forged] Finished request" in "".join(map(log_of, replicas.replicas)), "the request in a log")
    (line,) = re.findall(r".*\[forged\] Finished request.*", "".join(map(log_of, replicas.replicas)))
    assert ", for 127.0.0.9:" in line


def test_a_client_that_leaves_before_the_answer_frees_its_slot(replicas: Farm) -> None:
    def active() -> float:
        return sum(replica.server.active() for replica in replicas.replicas if replica.server is not None)

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(replicas.balancer.url + CHAT, json=body(max_tokens=480, n=MAX_BATCH_SIZE), timeout=0.3)
    wait_for(lambda: "499 client left" in "".join(map(log_of, replicas.replicas)), "the replica to notice")
    wait_for(lambda: active() == 0, "the engines to be idle")


def test_a_full_queue_is_another_replicas_request_and_429_when_all_are_full(replicas: Farm) -> None:
    """A body with as many answers as a replica can hold fits one time into each; the third finds no room anywhere."""
    all_places = MAX_BATCH_SIZE + 3 * QUEUE // 4  # the most that one caller may have of the queue
    with httpx.Client(base_url=replicas.balancer.url, timeout=60) as http:
        requests = [body(max_tokens=400, n=all_places, stream=True) for _ in range(2)]
        with http.stream("POST", CHAT, json=requests[0]) as one, http.stream("POST", CHAT, json=requests[1]) as other:
            assert (one.status_code, other.status_code) == (200, 200)
            before = replicas.balancer.num_retries()
            refused = http.post(CHAT, json=body(max_tokens=1, n=all_places))
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert refused.headers["retry-after"] == "1"
            assert replicas.balancer.num_retries() - before == 3


def test_a_conversation_stays_with_its_replica(replicas: Farm) -> None:
    def replicas_of(session: str) -> set[str]:
        ids = [f"{session}-{number}" for number in range(6)]
        for request_id in ids:
            answer = ask(replicas, headers={"X-Session-Id": session, "X-Request-Id": request_id}, max_tokens=1)
            assert answer.status_code == 200
        logs = {replica.name: log_of(replica) for replica in replicas.replicas}
        return {name for name, log in logs.items() for request_id in ids if f"[{request_id}] Finished" in log}

    by_session = [replicas_of(f"conversation{number}") for number in range(8)]
    assert [len(found) for found in by_session] == [1] * 8
    assert set.union(*by_session) == {"replica1", "replica2"}


@pytest.mark.parametrize("path", ["/metrics", "/load", "/health/generate"])
def test_what_says_something_about_one_replica_is_not_served(replicas: Farm, path: str) -> None:
    answer = httpx.get(replicas.balancer.url + path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


def test_no_request_fails_in_a_rolling_restart_and_none_before_its_answer_when_a_process_is_killed(
    replicas: Farm,
) -> None:
    """`python -m tests.benchmarks.rolling_restart` does more of this, and prints the table of docs/scale.md."""

    async def scenario() -> None:
        load = Load(replicas.balancer.url, SEED_MODEL, num_clients=8)
        async with load.running():
            restart = partial(replicas.rolling_restart, signal.SIGTERM)
            restarted = await observe(replicas, load, "restart", restart, num_requests=200)
            assert problems(restarted, may_cut=False) == []
            assert restarted.counts.ends == {End.ANSWERED: restarted.counts.sent}
            for number, name in enumerate(["frontend", "triton"]):
                killed = await observe(replicas, load, name, partial(replicas.kill, number, name), num_requests=20)
                assert problems(killed, may_cut=True) == []
                # With the engine gone the frontend still ends its streams; with the frontend gone, TCP does.
                assert not killed.counts.ends[End.CUT if name == "triton" else End.ERROR_EVENT]

    asyncio.run(scenario())


def test_a_balancer_without_a_replica_answers_503_as_the_api_does(replicas: Farm) -> None:
    """Last: it stops the replicas."""
    for replica in replicas.replicas:
        replica.stop(signal.SIGKILL)
    wait_for(lambda: set(replicas.balancer.states().values()) == {"DOWN"}, "HAProxy to see both down")
    answer = ask(replicas)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert json.loads(answer.content)["error"]["code"] == "engine_unavailable"
