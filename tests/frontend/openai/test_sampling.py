"""Every parameter is honoured, refused by name, or reported; ranges are OpenAI's and defaults vLLM 0.4's."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from frontend.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from frontend.generation import GenerationRequest, SamplingDefaults, SamplingParams
from frontend.openai.chat.request import to_chat_job
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.reply import Reply
from frontend.openai.unsupported import UNSUPPORTED, ignored_params
from frontend.text.served_model import ServedModel

MESSAGES = [{"role": "user", "content": "Hi"}]


def parse(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", "messages": MESSAGES, **fields})


def request_of(model: ServedModel, **fields: Any) -> GenerationRequest:
    """The first generation that a body asks for."""
    reply = Reply(id="cmpl-0", created=0, model="m")
    return to_chat_job(parse(**fields), model, reply, seed=7).requests[0]


def params(model: ServedModel, **fields: Any) -> SamplingParams:
    return request_of(model, **fields).sampling_params


def test_defaults_are_vllms_and_the_answer_may_fill_the_context(mixtral: ServedModel) -> None:
    request = request_of(mixtral)
    max_tokens = mixtral.engine.max_seq_len - len(request.prompt_token_ids)
    assert request.sampling_params == SamplingParams(max_tokens=max_tokens, temperature=0.7, top_p=1.0, seed=7)


HONOURED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0}, {"temperature": 0.0}),
    ({"temperature": 1e-9}, {"temperature": 0.0}),
    ({"temperature": None}, {"temperature": 0.7}),
    ({"top_p": 0.1}, {"top_p": 0.1}),
    ({"top_k": 40}, {"top_k": 40}),
    ({"top_k": -1}, {"top_k": None}),
    ({"top_k": 0}, {"top_k": None}),
    ({"min_p": 0.1}, {"min_p": 0.1}),
    ({"min_p": 0}, {"min_p": None}),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"max_completion_tokens": 5}, {"max_tokens": 5}),
    ({"max_completion_tokens": 5, "max_tokens": 6}, {"max_tokens": 5}),
    ({"stop": "x"}, {"stop": ("x",)}),
    ({"stop": ["x", "yz"]}, {"stop": ("x", "yz")}),
    ({"stop": None}, {"stop": ()}),
    ({"seed": 3}, {"seed": 3}),
    ({"seed": -1}, {"seed": 2**64 - 1}),
    ({"presence_penalty": 1.5}, {"presence_penalty": 1.5}),
    ({"presence_penalty": 0}, {"presence_penalty": None}),
    ({"frequency_penalty": -1.5}, {"frequency_penalty": -1.5}),
    ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
    ({"repetition_penalty": 1.0}, {"repetition_penalty": None}),
    ({"min_tokens": 4, "max_tokens": 5}, {"min_tokens": 4}),
    ({"ignore_eos": True}, {"ignore_eos": True}),
    ({"reasoning_effort": "high"}, {"temperature": 0.7}),
    # as vLLM reads them
    ({"temperature": "0.5"}, {"temperature": 0.5}),
    ({"max_tokens": 5.0}, {"max_tokens": 5}),
    ({"max_tokens": "5"}, {"max_tokens": 5}),
    ({"seed": "-1"}, {"seed": 2**64 - 1}),
    ({"stop_token_ids": ["7", 8.0]}, {"stop_token_ids": frozenset({7, 8})}),
    ({"ignore_eos": "true"}, {"ignore_eos": True}),
    ({"ignore_eos": 1}, {"ignore_eos": True}),
]


@pytest.mark.parametrize(("fields", "expected"), HONOURED)
def test_parameter_is_honoured(mixtral: ServedModel, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    got = params(mixtral, **fields)
    assert {name: getattr(got, name) for name in expected} == expected


# --- a checkpoint's default sampling ------------------------------------------------------------------------------

DEFAULTS = SamplingDefaults(temperature=0.2, top_p=0.9, top_k=40, min_p=0.05, repetition_penalty=1.1)
SAMPLED = {"temperature": 0.2, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1}
GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": None, "min_p": None, "repetition_penalty": None}

WITH_DEFAULTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, SAMPLED),
    ({"temperature": None, "top_k": None}, SAMPLED),
    ({"temperature": 1}, SAMPLED | {"temperature": 1.0}),
    ({"top_p": 1}, SAMPLED | {"top_p": 1.0}),
    ({"top_k": -1}, SAMPLED | {"top_k": None}),
    ({"min_p": 0}, SAMPLED | {"min_p": None}),
    ({"repetition_penalty": 1}, SAMPLED | {"repetition_penalty": None}),
    ({"temperature": 0}, GREEDY),
    ({"temperature": 0, "repetition_penalty": 1.3}, GREEDY | {"repetition_penalty": 1.3}),
]


@pytest.mark.parametrize(("fields", "expected"), WITH_DEFAULTS)
def test_the_checkpoints_defaults_hold_for_what_a_request_leaves_out(
    mixtral: ServedModel, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    got = params(replace(mixtral, sampling_defaults=DEFAULTS), **fields)
    assert {name: getattr(got, name) for name in expected} == expected


def test_a_default_that_the_engine_has_no_input_for_is_left_out(mixtral: ServedModel) -> None:
    engine = replace(mixtral.engine, honours=mixtral.engine.honours - {"min_p"})
    assert DEFAULTS.honoured_by(engine) == replace(DEFAULTS, min_p=None)
    assert DEFAULTS.honoured_by(mixtral.engine) == DEFAULTS
    params(replace(mixtral, engine=engine, sampling_defaults=DEFAULTS.honoured_by(engine)))


# --- ranges -------------------------------------------------------------------------------------------------------

BAD: list[tuple[str, Any]] = [
    ("temperature", 2.1), ("temperature", -0.1), ("temperature", float("nan")),
    ("temperature", "warm"), ("temperature", "nan"), ("temperature", "0x1"),
    ("top_p", 0), ("top_p", 1.1), ("min_p", 1.1), ("min_p", -0.1),
    ("max_tokens", 0), ("max_tokens", 1.5), ("max_tokens", "five"), ("max_tokens", "1.5"),
    ("max_tokens", "9" * 5000), ("max_tokens", 1e300),
    ("max_completion_tokens", -1),
    ("presence_penalty", 2.1), ("frequency_penalty", -2.1), ("repetition_penalty", 0), ("top_k", -2),
    ("min_tokens", -1),
    ("seed", 2**64), ("stop", ""), ("stop", ["a"] * 17), ("stop", ["a" * 257]),
    ("stop", 3), ("stop", [3]),
    ("messages", []), ("messages", None), ("model", 3), ("stream", "maybe"), ("stream", 2),
    ("ignore_eos", 0.5), ("stream_options", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_value_out_of_range_or_of_the_wrong_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**{name: value})
    assert caught.value.errors()[0]["loc"][0] == name


ASKS: dict[str, Any] = {
    "n": 2, "logprobs": True, "top_logprobs": 1, "logit_bias": {"1": 1}, "response_format": {"type": "json_object"},
    "functions": [{}], "function_call": {"name": "f"},
    "modalities": ["audio"], "best_of": 2, "use_beam_search": True, "length_penalty": 2.0, "early_stopping": True,
    "bad_words": ["x"], "allowed_token_ids": [1], "prompt_logprobs": 1,
    "echo": True, "add_special_tokens": True,
    "documents": [{}], "priority": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_known_parameter_is_refused_by_name_unless_its_value_changes_nothing(mixtral: ServedModel, name: str) -> None:
    for neutral in (None, *UNSUPPORTED[name].accepted):
        params(mixtral, **{name: neutral})
    with pytest.raises(UnsupportedParameter, match=f"`{name}`") as caught:
        params(mixtral, **{name: ASKS.get(name, "something")})
    assert caught.value.param == name


def test_true_is_not_taken_for_one(mixtral: ServedModel) -> None:
    with pytest.raises(UnsupportedParameter, match="null or 1"):
        params(mixtral, best_of=True)


def test_messages_as_openais_client_sends_them_back_are_accepted(mixtral: ServedModel) -> None:
    answer = {
        "role": "assistant",
        "content": "b",
        "tool_calls": None,
        "function_call": None,
        "audio": None,
        "refusal": None,
    }
    params(mixtral, messages=[*MESSAGES, answer, *MESSAGES])


def test_unknown_fields_are_accepted_and_listed_once_by_path() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}], "name": "Eva"}] * 2
    body = parse(messages=messages, foo=1, store=True, n=1, nothing=None, user="u")
    assert ignored_params(body) == ["foo", "store", "messages.name", "messages.content.cache"]


@pytest.mark.parametrize(
    ("content", "text"),
    [("a", "a"), ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\n\nb"), ([], "")],
)
def test_content_is_a_string_or_text_parts_joined_as_mistral_does(
    mixtral: ServedModel, content: Any, text: str
) -> None:
    request = request_of(mixtral, messages=[{"role": "user", "content": content}])
    assert request.prompt_token_ids == mixtral.tokenizer.encode(f"<s>[INST] {text} [/INST]")


@pytest.mark.parametrize("content", [3, {}, [{"type": "image_url", "image_url": {"url": "x"}}], ["a"]])
def test_content_that_is_not_text_is_refused(content: Any) -> None:
    with pytest.raises(ValidationError):
        parse(messages=[{"role": "user", "content": content}])


def test_developer_is_another_name_for_system(mixtral: ServedModel) -> None:
    prompts = [
        request_of(mixtral, messages=[{"role": role, "content": "s"}, *MESSAGES]) for role in ("developer", "system")
    ]
    assert prompts[0].prompt_token_ids == prompts[1].prompt_token_ids


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, 50), ({"max_tokens": 70}, 70), ({"min_tokens": 60}, 60)],
)
def test_an_engine_may_bound_answers_without_max_tokens(
    mixtral: ServedModel, fields: dict[str, Any], expected: int
) -> None:
    bounded = replace(mixtral, engine=replace(mixtral.engine, default_max_tokens=50))
    assert request_of(bounded, **fields).sampling_params.max_tokens == expected


def test_a_default_of_max_tokens_never_exceeds_the_context(mixtral: ServedModel) -> None:
    bounded = replace(mixtral, engine=replace(mixtral.engine, default_max_tokens=10**6))
    request = request_of(bounded)
    assert request.sampling_params.max_tokens == mixtral.engine.max_seq_len - len(request.prompt_token_ids)


def test_prompt_that_fills_the_context_is_refused_in_vllms_words(mixtral: ServedModel) -> None:
    with pytest.raises(
        ContextLengthExceeded, match=r"maximum context length is 4096 tokens\. However, you requested 5"
    ):
        params(mixtral, messages=[{"role": "user", "content": "a " * 5000}])


def test_max_tokens_that_do_not_fit_beside_the_prompt_are_refused_with_the_numbers(mixtral: ServedModel) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        params(mixtral, max_tokens=4090)
    assert str(caught.value) == (
        "This model's maximum context length is 4096 tokens. However, you requested 4099 tokens (9 in the messages, "
        "4090 in the completion). Please reduce the length of the messages or completion."
    )
    assert params(mixtral, max_tokens=4087).max_tokens == 4087


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(
    mixtral: ServedModel, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        params(mixtral, **fields)
    assert caught.value.param == param
