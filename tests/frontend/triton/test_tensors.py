"""The tensors of a request, and the tokens of Triton's events, however these are divided."""

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.errors import ContextLengthExceeded, EngineFailed, EngineUnavailable, StartupError
from frontend.generation import EndTokens, Engine, GenerationRequest, SamplingParams, TokenChunk
from frontend.triton.tensors import EventParser, encode_request, read_engine
from tests.frontend.fake_triton import OPTIONAL, REQUIRED, FakeTriton


def engine_with(inputs: set[str]) -> Engine:
    return read_engine({**FakeTriton().config(), "input": [{"name": name} for name in inputs]})


ENGINE = engine_with(REQUIRED | OPTIONAL)
ALWAYS = REQUIRED | OPTIONAL - {"num_top_log_probs", "num_prompt_top_log_probs"}
"""Inputs of TensorRT-LLM's model, too."""
OLD_ENGINE = engine_with(REQUIRED | OPTIONAL - {"seed", "min_tokens"} | {"random_seed", "min_length"})


def tensors(engine: Engine = ENGINE, **params: Any) -> dict[str, Any]:
    fields = {"max_tokens": 10, "temperature": 0.7, "top_p": 1.0, "seed": 42, **params}
    request = GenerationRequest(
        prompt_token_ids=[1, 733, 16289],
        sampling_params=SamplingParams(**fields),
        end_tokens=EndTokens(end_id=2, pad_id=7),
    )
    return encode_request(request, engine)


def test_a_plain_request_sends_the_required_inputs() -> None:
    assert tensors() == {
        "input_ids": [1, 733, 16289],
        "input_lengths": 3,
        "request_output_len": 10,
        "end_id": 2,
        "pad_id": 7,
        "streaming": True,
        "temperature": 0.7,
        "runtime_top_p": 1.0,
        "seed": 42,
    }


def test_temperature_zero_is_top_k_one_and_nothing_else() -> None:
    sent = tensors(temperature=0.0, top_p=0.5, top_k=40)
    assert sent["runtime_top_k"] == 1
    assert not sent.keys() & {"temperature", "runtime_top_p"}


def test_ignore_eos_sends_no_end_token() -> None:
    assert tensors(ignore_eos=True)["end_id"] == -1


def test_min_tokens_is_not_sent_where_no_token_ends_the_answer() -> None:
    """TensorRT-LLM bans the end token until then, by its id: -1 is in front of the logits."""
    assert tensors(min_tokens=5)["min_tokens"] == 5
    assert "min_tokens" not in tensors(min_tokens=5, ignore_eos=True)


def test_every_sampling_parameter_has_its_tensor() -> None:
    params: dict[str, Any] = {
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "min_tokens": 3,
    }
    sent = tensors(top_k=40, min_p=0.1, **params)
    assert {name: sent[name] for name in params} == params
    assert (sent["runtime_top_k"], sent["runtime_min_p"]) == (40, 0.1)


def test_inputs_have_the_names_that_the_loaded_engine_declares() -> None:
    sent = tensors(OLD_ENGINE, min_tokens=3)
    assert (sent["random_seed"], sent["min_length"]) == (42, 3)
    assert sent.keys() <= OLD_ENGINE.inputs


def test_a_guide_is_sent_as_a_grammar() -> None:
    sent = tensors(guide='root ::= "a"')
    assert (sent["guided_decoding_guide_type"], sent["guided_decoding_guide"]) == ("ebnf_grammar", 'root ::= "a"')


def test_biases_and_log_probs_have_their_inputs() -> None:
    sent = tensors(logit_bias=[0.0, -100.0], logprobs=True)
    assert (sent["embedding_bias"], sent["return_log_probs"]) == ([0.0, -100.0], True)


@pytest.mark.parametrize(
    ("input_name", "field"),
    [("embedding_bias", "logit_bias"), ("runtime_min_p", "min_p"), ("guided_decoding_guide", "guide")],
)
def test_the_engine_honours_only_fields_that_it_has_an_input_for(input_name: str, field: str) -> None:
    assert field in ENGINE.honours
    assert field not in engine_with((REQUIRED | OPTIONAL) - {input_name}).honours


def config(**changes: Any) -> dict[str, Any]:
    plain = {
        "name": "openvino",
        "max_batch_size": 8,
        "input": [{"name": name} for name in ENGINE.inputs],
        "output": [{"name": "output_ids"}, {"name": "kv_cache_reused_blocks"}],
        "parameters": {"max_seq_len": {"string_value": "8192"}, "tokens_per_block": {"string_value": "32"}},
    }
    return plain | changes


def test_limits_and_inputs_come_from_the_models_config() -> None:
    engine = read_engine(config())
    assert (engine.max_batch_size, engine.max_seq_len, engine.inputs) == (8, 8192, ENGINE.inputs)


@pytest.mark.parametrize("name", ["end_id", "streaming", "runtime_top_p", "seed"])
def test_a_model_without_an_input_that_is_always_sent_is_refused_at_start(name: str) -> None:
    with pytest.raises(StartupError, match=name):
        read_engine(config(input=[{"name": other} for other in ENGINE.inputs - {name}]))


def test_a_model_that_does_not_declare_its_context_is_refused_at_start() -> None:
    with pytest.raises(StartupError, match="max_seq_len"):
        read_engine(config(parameters={}))


def with_parameters(**parameters: str) -> dict[str, Any]:
    config = FakeTriton().config()
    added = {key: {"string_value": value} for key, value in parameters.items()}
    return {**config, "parameters": {**config["parameters"], **added}}


def test_the_default_of_max_tokens_is_the_models() -> None:
    assert ENGINE.default_max_tokens is None
    assert read_engine(with_parameters(default_max_tokens="2048")).default_max_tokens == 2048


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_default_of_max_tokens_that_is_no_number_is_refused_at_start(value: str) -> None:
    with pytest.raises(StartupError, match="default_max_tokens"):
        read_engine(with_parameters(default_max_tokens=value))


def test_a_scheduler_that_pauses_requests_is_refused_at_start() -> None:
    assert read_engine(with_parameters(batch_scheduler_policy="guaranteed_no_evict"))
    with pytest.raises(StartupError, match="batch_scheduler_policy is max_utilization; accepted: guaranteed_no_evict"):
        read_engine(with_parameters(batch_scheduler_policy="max_utilization"))


def test_an_engine_without_logits_has_no_alternatives() -> None:
    for parameters in ({}, {"gather_generation_logits": "false"}):
        engine = read_engine(with_parameters(**parameters) | {"input": [{"name": name} for name in ALWAYS]})
        assert engine.log_probs_model is None
        assert "top_logprobs" not in engine.honours


def test_an_engine_that_gathers_its_logits_has_alternatives_by_another_model() -> None:
    engine = read_engine(
        with_parameters(gather_generation_logits="true", max_gathered_tokens="32768")
        | {"name": "tensorrt_llm", "input": [{"name": name} for name in ALWAYS]}
    )
    assert engine.log_probs_model == "tensorrt_llm_log_probs"
    assert engine.max_gathered_tokens == 32768
    assert engine.honours >= {"top_logprobs"}
    assert "prompt_logprobs" not in engine.honours
    sent = tensors(engine, top_logprobs=3, logprobs=True)
    assert sent["return_generation_logits"] is True
    assert not sent.keys() & {"return_log_probs", "num_top_log_probs"}
    assert "return_generation_logits" not in tensors(engine, logprobs=True)


def test_how_many_tokens_may_be_gathered_must_be_said() -> None:
    with pytest.raises(StartupError, match="no number as parameter max_gathered_tokens"):
        read_engine(with_parameters(gather_generation_logits="true"))


@given(num_top=st.integers(0, 20), num_tokens=st.integers(0, 3))
def test_more_alternatives_than_were_asked_for_are_left_out(num_top: int, num_tokens: int) -> None:
    given = list(range(20 * num_tokens))
    response = {
        "output_ids": [7] * num_tokens,
        "token_log_probs": [-0.5] * num_tokens,
        "token_ranks": [1] * num_tokens,
        "top_token_ids": given,
        "top_log_probs": [-float(place) for place in given],
    }
    parser = EventParser(with_log_probs=False, with_alternatives=True, num_top=num_top)
    (chunk,) = parser.feed(event(response))
    assert chunk.top is not None
    assert list(chunk.top.top_token_ids) == [place for place in given if place % 20 < num_top]
    assert list(chunk.top.top_log_probs) == [-float(place) for place in chunk.top.top_token_ids]
    assert list(chunk.top.ranks) == [1] * num_tokens


def test_cached_tokens_are_asked_for_only_where_they_are_reported() -> None:
    assert "return_perf_metrics" not in tensors(read_engine(config()))
    assert tensors(read_engine(config(), with_cached_tokens=True))["return_perf_metrics"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": [{"name": "output_ids"}]}, "does not report its cached tokens"),
        ({"input": [{"name": name} for name in ENGINE.inputs - {"return_perf_metrics"}]}, "does not report its cached"),
        ({"parameters": {"max_seq_len": {"string_value": "8192"}}}, "no number as parameter tokens_per_block"),
    ],
)
def test_an_engine_that_does_not_report_cached_tokens_is_refused_at_start(
    changes: dict[str, Any], message: str
) -> None:
    read_engine(config(**changes))
    with pytest.raises(StartupError, match=message):
        read_engine(config(**changes), with_cached_tokens=True)


def test_cached_tokens_are_the_reused_blocks_times_their_size() -> None:
    parser = EventParser(with_log_probs=False, tokens_per_block=32)
    response = {"output_ids": 7, "sequence_length": 1, "kv_cache_reused_blocks": 3}
    assert parser.feed(event(response)) == [TokenChunk([7], [], 96)]
    del response["kv_cache_reused_blocks"]
    assert parser.feed(event(response)) == [TokenChunk([7], [], None)]


def event(response: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(response).encode() + b"\n\n"


@given(responses=st.lists(st.lists(st.integers(0, 32000), max_size=4), max_size=6), data=st.data())
def test_tokens_do_not_depend_on_how_events_are_divided(responses: list[list[int]], data: st.DataObject) -> None:
    flat = [ids[0] if len(ids) == 1 else ids for ids in responses]  # as Triton writes lists of one
    stream = b"".join(event({"output_ids": ids, "sequence_length": 1}) for ids in flat)
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    parser = EventParser(with_log_probs=False)
    pieces = [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]
    assert [list(chunk.token_ids) for piece in pieces for chunk in parser.feed(piece)] == responses


@given(responses=st.lists(st.lists(st.integers(0, 32000), max_size=4), max_size=6))
def test_log_probs_of_all_tokens_so_far_are_returned_once(responses: list[list[int]]) -> None:
    so_far: list[int] = []
    parser = EventParser(with_log_probs=True)
    for token_ids in responses:
        so_far += token_ids
        log_probs = [-float(token_id) for token_id in so_far]
        flat: dict[str, list[Any]] = {"output_ids": token_ids, "output_log_probs": log_probs}
        scalars = {name: values[0] if len(values) == 1 else values for name, values in flat.items()}
        (chunk,) = parser.feed(event(scalars))
        assert (chunk.token_ids, chunk.log_probs) == (token_ids, [-float(token_id) for token_id in token_ids])


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("Prompt length (9000) exceeds maximum input length (8192) /app/llmRequest.cpp:42", ContextLengthExceeded),
        ("Exceeds maximum queue size", EngineUnavailable),
        ("Maximum queue size of 10 has been reached", EngineUnavailable),
        ("Server is shutting down", EngineUnavailable),
        ("[TensorRT-LLM][ERROR] Assertion failed: /app/secret/path.cpp:12", EngineFailed),
    ],
)
def test_engine_errors_are_classified_logged_completely_and_not_passed_on(
    message: str, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(error) as caught:
        EventParser(with_log_probs=False).feed(event({"error": message}))
    assert message in caplog.text
    assert not any(word in str(caught.value) for word in ("/app", "cpp", "TensorRT", "Assertion"))
