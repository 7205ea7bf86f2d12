"""The metrics: vLLM's names, exact counts, and the KV cache only if Triton reports one."""

import contextlib
from collections.abc import Mapping
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from frontend.generation import EndTokens, GenerationRequest, SamplingParams, TokenChunk
from frontend.server.histograms import HistogramText, RepeatHistogram, token_buckets
from frontend.server.metrics import Metrics, Rate
from frontend.text.detokenizer import AnswerDecoder
from frontend.triton.kv_cache import KvCache, read_kv_cache
from tests.frontend.conftest import API_KEY, CHAT, KEY_NAME, MODEL, Running, body
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
    """Every sample by its name and labels, without `model_name` and `engine`, which all of vLLM's have."""
    response = http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    vllms = [sample for sample in samples if sample.name.startswith("vllm:")]
    assert {(sample.labels["model_name"], sample.labels["engine"]) for sample in vllms} == {(MODEL, "0")}
    return {named(sample): sample.value for sample in samples}


def named(sample: Sample) -> str:
    labels = [value for label, value in sample.labels.items() if label not in ("model_name", "engine")]
    return " ".join([sample.name, *labels])


def samples_of(metrics: Metrics) -> dict[str, float]:
    """Every sample of the counters and histograms, in the name that Prometheus gives it."""
    families = text_string_to_metric_families(metrics.to_text().decode())
    samples = [sample for family in families for sample in family.samples]
    return {named(sample): sample.value for sample in samples}


def answer_of(*, num_prompt_tokens: int) -> AnswerDecoder:
    request = GenerationRequest(
        prompt_token_ids=range(num_prompt_tokens),
        sampling_params=SamplingParams(max_tokens=100, temperature=0, top_p=1, seed=0),
        end_tokens=EndTokens(end_id=2, pad_id=2),
    )
    return AnswerDecoder(request, {}, with_tokens=False)


def growth(before: Mapping[str, float], after: Mapping[str, float], *names: str) -> list[float]:
    return [after.get(name, 0) - before.get(name, 0) for name in names]


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


def test_a_prompt_with_several_answers_counts_once(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], [6004]])]
    before = scrape(http)
    usage = http.post(CHAT, json=body(n=3, max_tokens=2)).json()["usage"]
    after = scrape(http)
    names = [
        f"vllm:request_{name}" for name in ("prompt_tokens", "params_n", "params_best_of", "max_num_generation_tokens")
    ]
    assert growth(before, after, *[f"{name}_count" for name in names]) == [1, 1, 1, 1]
    assert growth(before, after, *[f"{name}_sum" for name in names]) == [usage["prompt_tokens"], 3, 3, 2]
    each = "vllm:request_generation_tokens", "vllm:request_params_max_tokens"
    assert growth(before, after, *[f"{name}_count" for name in each]) == [3, 3]
    assert growth(before, after, *[f"{name}_sum" for name in each]) == [6, 6]
    assert growth(before, after, "vllm:prompt_tokens_total") == [usage["prompt_tokens"]]


def test_every_prompt_of_a_completion_counts(http: httpx.Client, triton: FakeTriton) -> None:
    before = scrape(http)
    sent = {"model": MODEL, "prompt": ["Ein", "Ein Haus"], "n": 2, "max_tokens": 1}
    usage = http.post("/v1/completions", json=sent).json()["usage"]
    names = "vllm:request_prompt_tokens_count", "vllm:request_prompt_tokens_sum", "vllm:prompt_tokens_total"
    assert growth(before, scrape(http), *names) == [2, usage["prompt_tokens"], usage["prompt_tokens"]]


def test_refusals_and_failures_count_by_status_and_code(frontend: Running, http: httpx.Client) -> None:
    frontend.triton.script = [Refusal(500, "boom")]
    before = scrape(http)
    http.post(CHAT, json=body())
    http.post(CHAT, json=body(model="gpt-4"))
    http.post(CHAT, json=body(temperature=9))
    http.get("/nothing", headers={f"x-{number}": "1" for number in range(200)})
    names = [f"frontend_errors_total {labels}" for labels in (" 500", "model_not_found 404", " 400", " 431")]
    frontend.wait_until(lambda: growth(before, scrape(http), *names) == [1, 1, 1, 1])


def test_a_request_that_its_client_gave_up_is_cancelled_and_no_error(frontend: Running, http: httpx.Client) -> None:
    frontend.triton.script = [Endless(6004)]
    before = scrape(http)
    with http.stream("POST", CHAT, json=body(stream=True)):
        pass
    frontend.wait_until(lambda: growth(before, scrape(http), "frontend_requests_cancelled_total") == [1])
    assert not [name for name in scrape(http) if name.startswith("frontend_errors") and "499" in name]


def test_guides_count_their_time_and_their_refusals(http: httpx.Client) -> None:
    before = scrape(http)
    assert http.post(CHAT, json=body(guided_choice=["ja", "nein"])).status_code == 200
    assert http.post(CHAT, json=body(guided_regex="(")).status_code == 400
    names = "frontend_guide_compile_seconds_count", "frontend_guide_failures_total 400"
    assert growth(before, scrape(http), *names) == [2, 1]


def test_keys_of_the_key_file_count_by_name_and_no_other_caller(
    frontend: Running, guarded: httpx.Client, http: httpx.Client
) -> None:
    before = scrape(http)
    usage = guarded.post(CHAT, json=body(), headers={"authorization": f"Bearer {API_KEY}"}).json()["usage"]
    guarded.post(CHAT, json=body(), headers={"authorization": "Bearer wrong"})
    http.post(CHAT, json=body())
    names = [f"frontend_key_{name}" for name in (f"requests_total {KEY_NAME} 200", f"tokens_total {KEY_NAME} prompt")]
    frontend.wait_until(lambda: growth(before, scrape(http), *names) == [1, usage["prompt_tokens"]])
    assert {name.split()[1] for name in scrape(http) if name.startswith("frontend_key")} == {KEY_NAME}


def test_the_process_and_the_build_are_there() -> None:
    found = samples_of(Metrics(MODEL, 4096, build={"version": "0.1.0", "engine_versions": "openvino 2026.1"}))
    assert found["frontend_build_info openvino 2026.1 0.1.0"] == 1
    assert found["process_resident_memory_bytes"] > 0
    assert found["process_open_fds"] > 0


def test_buckets_of_tokens_end_at_the_context() -> None:
    assert token_buckets(100) == [1, 2, 5, 10, 20, 50, 100]
    assert token_buckets(4096)[-3:] == [500, 1000, 2000]


def test_steps_are_estimated_from_how_many_generations_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("frontend.server.engine_steps.time", SimpleNamespace(monotonic=lambda: now[0]))
    metrics = Metrics(MODEL, 4096)
    for at, by in ((0, 1), (10, 1), (20, -2), (50, 0)):  # one for 10 s, two for 10 s, none for 30 s
        now[0] = at
        metrics.steps.change(by)
    metrics.steps.observe(30, 300)  # a token a step and 10 steps a second: 100 and 200 tokens
    name = "vllm:iteration_tokens_total"
    found = samples_of(metrics)
    assert found[f"{name}_count"] == 200
    assert found[f"{name}_sum"] == pytest.approx(330)
    metrics.steps.observe(30, 300)
    assert samples_of(metrics)[f"{name}_count"] == 200


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
    assert (found["vllm:kv_cache_usage_perc"], found["vllm:gpu_cache_usage_perc"]) == (0.25, 0.25)
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
    metrics, one_by_one = Metrics(MODEL, 4096), Metrics(MODEL, 4096)
    for value, count in ((0.05, 1), (0.1, 2), (0.5, 1), (7, 1)):
        metrics.time_per_output_token.observe_times(value, count)
        for _ in range(count):
            one_by_one.time_per_output_token.observe(value)
    name = "vllm:time_per_output_token_seconds"
    found, expected = samples_of(metrics), samples_of(one_by_one)
    assert {key: found[key] for key in found if name in key} == {key: expected[key] for key in found if name in key}
    assert [found[f"{name}_bucket {bound}"] for bound in ("0.075", "0.1", "0.5", "2.5", "+Inf")] == [1, 3, 4, 4, 5]
    assert found[f"{name}_sum"] == pytest.approx(0.05 + 0.2 + 0.5 + 7)


def test_the_text_of_a_histogram_is_the_librarys() -> None:
    labels = {"model_name": 'a "name" \\ with\nall', "engine": "0"}
    family = RepeatHistogram(
        "vllm:h", 'Help with \\ and "quotes".', tuple(labels), buckets=(0.5, 1, 7680), registry=None
    )
    text = HistogramText(family, labels)
    histogram = family.labels(**labels)
    for values in ((), (0.1, 0.5, 3), (1e9, 1e-7)):
        for value in values:
            histogram.observe(value)
        assert text.write().encode() == generate_latest(family)
    histogram.observe_times(0.75, 12_345_678)
    assert text.write().encode() == generate_latest(family)


def test_a_rate_is_the_mean_since_the_last_update(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 107.0, 107.0])
    monkeypatch.setattr("frontend.server.metrics.time", SimpleNamespace(monotonic=lambda: next(clock)))
    rate = Rate()
    assert [rate.update(total) for total in (30, 40, 50)] == [15, 2, 0]


def test_the_tokens_after_the_first_share_the_time_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 10.1, 10.2, 10.5, 11.5])
    monkeypatch.setattr("frontend.server.metrics.time", SimpleNamespace(monotonic=lambda: next(clock)))
    metrics, decoder = Metrics(MODEL, 4096), answer_of(num_prompt_tokens=7)
    generation = metrics.clock(decoder, arrived_at=10.0)
    with metrics.count([generation]):
        generation.start()
        generation.grew_to(decoder.feed(TokenChunk([1])).num_completion_tokens)
        decoder.feed(TokenChunk([2, 3, 4, 5]))
        generation.finish()
    found = samples_of(metrics)
    assert found["vllm:time_to_first_token_seconds_sum"] == 0.5
    assert found["vllm:time_per_output_token_seconds_sum"] == 1.0
    assert found["vllm:time_per_output_token_seconds_bucket 0.3"] == 4
    assert found["vllm:inter_token_latency_seconds_bucket 0.3"] == 4
    assert found["vllm:request_time_per_output_token_seconds_sum"] == 0.25
    assert found["vllm:e2e_request_latency_seconds_sum"] == 1.5
    times = {
        name: found[f"vllm:request_{name}_time_seconds_sum"] for name in ("queue", "prefill", "decode", "inference")
    }
    assert times == pytest.approx({"queue": 0.1, "prefill": 0.3, "decode": 1.0, "inference": 1.3})


def test_tokens_count_while_running_and_after_a_failure() -> None:
    metrics, decoder = Metrics(MODEL, 4096), answer_of(num_prompt_tokens=7)
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
