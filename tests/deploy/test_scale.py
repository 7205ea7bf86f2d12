"""The simulation behind the plan of docs/scale.md, against one that is slow and plain, and against the plan."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_engine.mixtral import to_mixtral_config
from build_engine.model_config import Limits
from build_engine.tensorrt_llm.gpus import GPUS
from build_engine.tensorrt_llm.speed import speed
from tests.benchmarks.scale.__main__ import MIXTRAL_8X7B
from tests.benchmarks.scale.fleet import Needs, restart_s
from tests.benchmarks.scale.loads import LOADS, Load, Request, draw, mean_tokens
from tests.benchmarks.scale.replica import Engine, capacity, engine_of, percentile, simulate

LIMITS = Limits(max_batch_size=2, max_seq_len=100, max_num_tokens=4)


def of_a_second(_: int, __: int, ___: int) -> float:
    """Every step takes a second."""
    return 1.0


ENGINE = Engine(LIMITS, kv_tokens=50, step_s=of_a_second)


def request(prompt: int, answer: int, *, at: float = 0.0, reserved: int | None = None) -> Request:
    return Request(at, prompt, answer, prompt + answer if reserved is None else reserved)


def test_a_request_that_is_alone() -> None:
    """10 tokens of prompt are three steps of 4, the last of which has the first token; 4 more steps for the others."""
    observed = simulate(ENGINE, [request(10, 5)])
    assert (observed.first_token_s, observed.per_token_s, observed.ended_at) == ([3.0], [1.0], 7.0)


def test_an_engine_that_is_full_by_requests_lets_the_next_wait() -> None:
    observed = simulate(ENGINE, [request(1, 3), request(1, 3), request(1, 1)])
    assert observed.first_token_s == [1.0, 1.0, 4.0]


def test_an_engine_whose_kv_cache_is_reserved_lets_the_next_wait() -> None:
    observed = simulate(ENGINE, [request(1, 3, reserved=40), request(1, 1, reserved=11)])
    assert observed.first_token_s == [1.0, 4.0]


def test_an_idle_engine_waits_for_the_next_request() -> None:
    observed = simulate(ENGINE, [request(1, 1), request(1, 1, at=100.0)])
    assert (observed.first_token_s, observed.ended_at) == ([1.0, 1.0], 101.0)


def followed(engine: Engine, requests: Sequence[Request]) -> list[tuple[float, float]]:
    """The times of the first and the last token of each request, with a list of tokens for each that runs."""
    waiting, running, now = list(range(len(requests))), dict[int, list[float]](), 0.0
    done, prompts = dict[int, int](), dict[int, list[float]]()
    while waiting or running:
        if not running and requests[waiting[0]].arrived_at > now:
            now = requests[waiting[0]].arrived_at
        while (
            waiting
            and requests[waiting[0]].arrived_at <= now
            and len(running) < engine.limits.max_batch_size
            and sum(requests[index].reserved for index in (*running, waiting[0])) <= engine.kv_tokens
        ):
            running[waiting[0]], done[waiting.pop(0)] = [], 0
        tokens = {index for index, times in running.items() if times}
        room = engine.limits.max_num_tokens - len(tokens)
        for index in running:
            if not running[index]:
                piece = min(room, requests[index].prompt_tokens - done[index])
                done[index] += piece
                room -= piece
        now += 1.0
        for index in list(running):
            if index in tokens or done[index] == requests[index].prompt_tokens:
                running[index].append(now)
            if len(running[index]) == requests[index].answer_tokens:
                prompts[index] = running.pop(index)
    return [(prompts[index][0], prompts[index][-1]) for index in range(len(requests))]


REQUESTS = st.lists(
    st.builds(request, st.integers(1, 12), st.integers(1, 6), at=st.integers(0, 30).map(float)), min_size=1, max_size=12
).map(lambda requests: sorted(requests, key=lambda one: one.arrived_at))


@given(REQUESTS, st.integers(1, 5), st.integers(5, 8), st.integers(18, 60))
def test_many_requests_as_the_slow_simulation_has_them(
    requests: list[Request], batch: int, num_tokens: int, kv_tokens: int
) -> None:
    engine = Engine(Limits(max_batch_size=batch, max_seq_len=100, max_num_tokens=num_tokens), kv_tokens, of_a_second)
    observed, expected = simulate(engine, requests), followed(engine, requests)
    assert sorted(observed.first_token_s) == sorted(
        first - one.arrived_at for (first, _), one in zip(expected, requests, strict=True)
    )
    assert observed.ended_at == max(last for _, last in expected)


def test_a_full_engine_is_as_fast_as_make_plan_expects() -> None:
    """At most as with prompts that are spread evenly over all steps, at least as with steps of prompts alone."""
    config, load, gpu = to_mixtral_config(MIXTRAL_8X7B), LOADS[-1], GPUS["h100-80g"]
    engine = engine_of(config, gpu, 1, load.limits)
    prompts, answers = mean_tokens(load)
    found = capacity(engine, load, answers, count=2000).tokens_per_s

    def planned(prompt_tokens: float) -> float:
        context, batch = round(prompts + answers / 2), engine.limits.max_batch_size
        return speed(config, gpu, 1, batch, context=context, prompt_tokens=prompt_tokens).expected

    most = planned(prompts / answers)
    least = 1 / (1 / planned(0) + prompts / answers / (1000 * planned(1000)))
    assert least < found < most


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_requests_have_the_lengths_and_the_rate_of_their_load(load: Load) -> None:
    requests = draw(load, 20_000, 10.0, 32_768)
    prompts, answers = mean_tokens(load)
    count = len(requests)
    assert sum(one.prompt_tokens for one in requests) / count == pytest.approx(prompts, rel=0.03)
    assert sum(one.answer_tokens for one in requests) / count == pytest.approx(answers, rel=0.03)
    assert requests[-1].arrived_at == pytest.approx(count / 10.0, rel=0.03)
    assert all(one.reserved <= 32_768 for one in requests)


def test_a_higher_rate_is_the_same_load_sooner() -> None:
    slow, fast = draw(LOADS[0], 50, 1.0, 32_768), draw(LOADS[0], 50, 10.0, 32_768)
    assert [one.arrived_at for one in slow] == pytest.approx([10 * one.arrived_at for one in fast])
    assert [one.prompt_tokens for one in slow] == [one.prompt_tokens for one in fast]
    assert {one.arrived_at for one in draw(LOADS[0], 5, math.inf, 32_768)} == {0.0}


def test_what_is_served_keeps_the_promise_and_half_more_does_not() -> None:
    config, load = to_mixtral_config(MIXTRAL_8X7B), LOADS[0]
    assert load.promise is not None
    engine = engine_of(config, GPUS["h100-80g"], 1, load.limits)
    found = capacity(engine, load, mean_tokens(load)[1], count=600)
    assert found.first_token_s <= load.promise.first_token_s
    assert found.per_token_s <= load.promise.per_token_s
    more = simulate(engine, draw(load, 600, 1.5 * found.requests_per_s, engine.limits.max_seq_len))
    assert (
        percentile(more.first_token_s, 0.99) > load.promise.first_token_s
        or percentile(more.per_token_s, 0.99) > load.promise.per_token_s
    )


def test_percentiles_are_values_that_occurred() -> None:
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.34, 0.67, 1.0)] == [1.0, 2.0, 3.0, 3.0]


def test_needs_and_restarts_are_sums() -> None:
    needs = Needs(replicas=10, tokens_per_s=10_000)
    assert needs.frontend_cores == pytest.approx(0.074)
    assert needs.hours_between_failures == pytest.approx(5067.7, rel=0.001)
    # 3 rounds of 4, 4 and 2 replicas: 35 s to end, 4 * 25.2 GB from 10 GB/s, 30 s to start.
    assert restart_s(10, 4, 10e9) == pytest.approx(3 * (35 + 10.08 + 30))
