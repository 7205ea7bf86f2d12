"""OpenAI's older completions: prompts in four forms, text offsets, echo, and refusals."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.frontend.conftest import MODEL, error_of
from tests.frontend.fake_triton import Events, FakeTriton, log_prob_of

COMPLETIONS = "/v1/completions"


@pytest.mark.parametrize(
    ("prompt", "prompt_token_ids"),
    [
        ("Ein", [[1, 6004]]),
        ("<s>Ein", [[1, 6004]]),
        ("", [[1]]),
        (["Ein", "Haus"], [[1, 6004], [1, 21209]]),
        ([6004], [[6004]]),
        ([[6004], [21209, 3]], [[6004], [21209, 3]]),
    ],
)
def test_prompt_is_text_with_one_bos_or_token_ids_as_they_are(
    http: httpx.Client, triton: FakeTriton, prompt: Any, prompt_token_ids: list[list[int]]
) -> None:
    assert http.post(COMPLETIONS, json={"model": MODEL, "prompt": prompt}).status_code == 200
    sent = [request["input_ids"] for request in triton.requests]
    assert sorted(sent) == sorted(prompt_token_ids)
    assert {request["request_output_len"] for request in triton.requests} == {16}
    assert {request["temperature"] for request in triton.requests} == {1.0}


def test_no_special_tokens_are_added_if_the_request_says_so(http: httpx.Client, triton: FakeTriton) -> None:
    http.post(COMPLETIONS, json={"model": MODEL, "prompt": "Ein", "add_special_tokens": False})
    assert triton.requests[0]["input_ids"] == [6004]


def test_json_body_has_openais_fields_in_order(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], [21209]])]
    answer = http.post(COMPLETIONS, json={"model": MODEL, "prompt": "a", "logprobs": 0}).json()
    assert list(answer) == ["id", "object", "created", "model", "choices", "usage"]
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "text": " Ein Haus",
            "logprobs": {
                "text_offset": [0, 4],
                "token_logprobs": [log_prob_of(6004), log_prob_of(21209)],
                "tokens": [" Ein", " Haus"],
                "top_logprobs": None,
            },
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]


def test_openais_client_reads_the_stream_and_offsets_continue(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], [21209]])]
    chunks = list(
        client.completions.create(
            model=MODEL, prompt="a", stream=True, logprobs=0, stream_options={"include_usage": True}
        )
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == " Ein Haus"
    offsets = [choice.logprobs.text_offset for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert offsets == [[0], [4]]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


def test_stream_echoes_the_prompt_first(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004]])]
    response = http.post(COMPLETIONS, json={"model": MODEL, "prompt": [6004, 21209], "echo": True, "stream": True})
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    texts = [json.loads(line)["choices"][0]["text"] for line in lines[:-1]]
    assert texts == ["Ein Haus", " Ein", ""]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True, "logprobs": 0, "stream": True, "n": 2}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"prompt": [32000]}, "prompt"),
        ({"prompt": [], "max_tokens": 3}, "prompt"),
        ({"prompt": "", "add_special_tokens": False}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"stop_token_ids": [32000]}, "stop_token_ids"),
        ({"logit_bias": {"32000": 1}}, "logit_bias"),
    ],
)
def test_invalid_request_is_refused_by_field(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    error = error_of(http.post(COMPLETIONS, json={"model": MODEL, "prompt": "a", **fields}), 400)
    assert str(error["param"]).split(".")[0].split("[")[0] == param


def test_truncated_prompt_keeps_its_last_tokens(http: httpx.Client, triton: FakeTriton) -> None:
    for keep in (2, -1):
        prompt = {"prompt": [6004] * 5000 + [21209, 3], "truncate_prompt_tokens": keep, "max_tokens": 96}
        assert http.post(COMPLETIONS, json={"model": MODEL, **prompt}).status_code == 200
    assert triton.requests[0]["input_ids"] == [21209, 3]
    assert triton.requests[1]["input_ids"] == [6004] * 3998 + [21209, 3]


def test_logit_bias_is_a_number_for_every_token(http: httpx.Client, triton: FakeTriton) -> None:
    http.post(COMPLETIONS, json={"model": MODEL, "prompt": "a", "logit_bias": {"3": -100, "31999": 2.5}})
    bias = triton.requests[0]["embedding_bias"]
    assert len(bias) == 32000
    assert {token_id: value for token_id, value in enumerate(bias) if value} == {3: -100, 31999: 2.5}
