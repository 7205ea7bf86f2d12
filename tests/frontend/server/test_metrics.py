"""The metrics: vLLM's names, exact counts, and the KV cache only if Triton reports one."""

import contextlib
from collections.abc import Mapping
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from frontend.generation import EndTokens, GenerationRequest, SamplingParams, TokenChunk
from frontend.server.metrics import Metrics, Rate
from frontend.text.detokenizer import AnswerDecoder
from frontend.triton.kv_cache import KvCache, read_kv_cache
from tests.frontend.conftest import CHAT, MODEL, Running, body
from tests.frontend.fake_triton import Endless, Events, FakeTriton, Refusal

TRITON_METRICS = """
# HELP nv_trt_llm_kv_cache_block_metrics TRT LLM KV cache block metrics
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="openvino",version="1"} 32
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="openvino",version="1"} 200
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="openvino",version="1"} 50
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="another",version="1"} 7
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{gpu_uuid="GPU-1"} 71.5
"""


def scrape(http: httpx.Client) -> dict[str, float]:
    """Every sample by its name in Prometheus, without the label `model_name`, which every sample has."""
    response = http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    assert {sample.labels.pop("model_name") for sample in samples} == {MODEL}
    return {sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value for sample in samples}


def samples_of(metrics: Metrics) -> dict[str, float]:
    """Every sample of the counters and histograms, in the name that Prometheus gives it."""
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    return {
        sample.name
        + "".join(f" {value}" for label, value in sample.labels.items() if label != "model_name"): sample.value
        for sample in samples
    }


def answer_of(*, num_prompt_tokens: int) -> AnswerDecoder:
    request = GenerationRequest(
        prompt_token_ids=range(num_prompt_tokens),
        sampling_params=SamplingParams(max_tokens=100, temperature=0, top_p=1, seed=0),
        end_tokens=EndTokens(end_id=2, pad_id=2),
    )
    return AnswerDecoder(request, {}, with_tokens=False)


def growth(before: Mapping[str, float], after: Mapping[str, float], *names: str) -> list[float]:
    return [after[name] - before.get(name, 0) for name in names]


def test_an_answer_counts_its_tokens_and_its_times(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004]]), Events([[6004, 6004]]), Events([[]])]
    before = scrape(http)
    usage = http.post(CHAT, json=body()).json()["usage"]
    after = scrape(http)
    totals = "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total stop"
    assert growth(before, after, *totals) == [usage["prompt_tokens"], 3, 1]
    times = "time_to_first_token_seconds", "time_per_output_token_seconds", "e2e_request_latency_seconds"
    assert growth(before, after, *[f"vllm:{name}_count" for name in times]) == [1, 2, 1]
    assert growth(before, after, *[f"vllm:{name}_bucket +Inf" for name in times]) == [1, 2, 1]


def test_an_answer_without_tokens_has_no_time_to_first_token(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[]])]
    before = scrape(http)
    assert http.post(CHAT, json=body()).status_code == 200
    names = "vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_count", "vllm:request_success_total stop"
    assert growth(before, scrape(http), *names) == [0, 0, 1]


def test_a_failed_answer_is_no_success(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Refusal(500, "boom")]
    before = scrape(http)
    assert http.post(CHAT, json=body()).status_code == 500
    names = "vllm:request_success_total stop", "vllm:prompt_tokens_total", "vllm:e2e_request_latency_seconds_count"
    assert growth(before, scrape(http), *names) == [0, 0, 0]


def test_each_of_several_answers_is_a_generation(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], [6004]])]
    before = scrape(http)
    assert http.post(CHAT, json=body(n=3, max_tokens=2)).status_code == 200
    names = "vllm:request_success_total length", "vllm:generation_tokens_total"
    assert growth(before, scrape(http), *names) == [3, 6]


def test_gauges_count_running_and_waiting_generations(frontend: Running, http: httpx.Client) -> None:
    frontend.triton.script = [Endless(6004)]
    most = frontend.triton.max_batch_size
    with http.stream("POST", CHAT, json=body(stream=True, n=most + 1)):
        frontend.wait_until(lambda: frontend.admission.num_waiting == 1)
        gauges = scrape(http)
        assert (gauges["vllm:num_requests_running"], gauges["vllm:num_requests_waiting"]) == (most, 1)
        assert scrape(http)["vllm:avg_generation_throughput_toks_per_s"] > 0
    frontend.wait_until(lambda: frontend.admission.num_running == 0)
    gauges = scrape(http)
    assert (gauges["vllm:num_requests_running"], gauges["vllm:num_requests_waiting"]) == (0, 0)


def test_kv_cache_metrics_are_read_from_triton(http: httpx.Client, triton: FakeTriton) -> None:
    triton.metrics = TRITON_METRICS
    found = scrape(http)
    assert found["vllm:gpu_cache_usage_perc"] == 0.25
    assert found["vllm:cache_config_info 32 200"] == 1


@pytest.mark.parametrize(
    "metrics",
    [None, "", "no metrics", TRITON_METRICS.replace('model="openvino",', ""), TRITON_METRICS.replace('"max"', '""')],
)
def test_without_tritons_metrics_there_are_none_of_the_kv_cache(
    http: httpx.Client, triton: FakeTriton, metrics: str | None
) -> None:
    triton.metrics = metrics
    assert not [name for name in scrape(http) if "cache" in name]


def test_metrics_are_served_without_triton(frontend: Running, http: httpx.Client) -> None:
    frontend.kill_triton()
    try:
        assert "vllm:num_requests_running" in scrape(http)
    finally:
        frontend.revive_triton()


def test_metrics_need_a_key_if_there_are_keys(guarded: httpx.Client) -> None:
    assert guarded.get("/metrics").status_code == 401


def test_usage_of_a_cache_without_blocks_is_zero() -> None:
    empty = TRITON_METRICS.replace("} 200", "} 0").replace("} 50", "} 0")
    assert read_kv_cache(empty, "openvino") == KvCache(num_blocks=0, tokens_per_block=32, usage=0)


def test_observe_times_equals_as_many_calls_of_observe() -> None:
    metrics, one_by_one = Metrics(MODEL), Metrics(MODEL)
    for value, count in ((0.05, 1), (0.1, 2), (0.5, 1), (7, 1)):
        metrics.time_per_output_token.observe_times(value, count)
        for _ in range(count):
            one_by_one.time_per_output_token.observe(value)
    assert samples_of(metrics) == samples_of(one_by_one)
    name = "vllm:time_per_output_token_seconds"
    found = samples_of(metrics)
    assert [found[f"{name}_bucket {bound}"] for bound in ("0.075", "0.1", "0.5", "2.5", "+Inf")] == [1, 3, 4, 4, 5]
    assert found[f"{name}_sum"] == pytest.approx(0.05 + 0.2 + 0.5 + 7)


def test_a_rate_is_the_mean_since_the_last_update(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 107.0, 107.0])
    monkeypatch.setattr("frontend.server.metrics.time", SimpleNamespace(monotonic=lambda: next(clock)))
    rate = Rate()
    assert [rate.update(total) for total in (30, 40, 50)] == [15, 2, 0]


def test_the_tokens_after_the_first_share_the_time_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 10.5, 11.5])
    monkeypatch.setattr("frontend.server.metrics.time", SimpleNamespace(monotonic=lambda: next(clock)))
    metrics, decoder = Metrics(MODEL), answer_of(num_prompt_tokens=7)
    generation = metrics.clock(decoder, arrived_at=10.0)
    with metrics.count([generation]):
        generation.grew_to(decoder.feed(TokenChunk([1])).num_completion_tokens)
        decoder.feed(TokenChunk([2, 3, 4, 5]))
        generation.finish()
    found = samples_of(metrics)
    assert found["vllm:time_to_first_token_seconds_sum"] == 0.5
    assert found["vllm:time_per_output_token_seconds_sum"] == 1.0
    assert found["vllm:time_per_output_token_seconds_bucket 0.3"] == 4
    assert found["vllm:e2e_request_latency_seconds_sum"] == 1.5


def test_tokens_count_while_running_and_after_a_failure() -> None:
    metrics, decoder = Metrics(MODEL), answer_of(num_prompt_tokens=7)
    generation = metrics.clock(decoder, arrived_at=10.0)
    with contextlib.suppress(ConnectionError), metrics.count([generation]):
        assert (metrics.num_prompt_tokens, metrics.num_generation_tokens) == (0, 0)
        generation.grew_to(decoder.feed(TokenChunk([1, 2])).num_completion_tokens)
        assert (metrics.num_prompt_tokens, metrics.num_generation_tokens) == (7, 2)
        raise ConnectionError
    assert (metrics.num_prompt_tokens, metrics.num_generation_tokens) == (7, 2)
    found = samples_of(metrics)
    assert found["vllm:time_to_first_token_seconds_bucket +Inf"] == 1
    assert not [name for name in found if "request_success" in name]
