"""Log probabilities with alternatives and of prompts, through each endpoint, as OpenAI and vLLM write them."""

import json
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from frontend.errors import UnsupportedParameter
from frontend.openai.chat.request import to_chat_job
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.completions.request import to_completion_job
from frontend.openai.completions.types import CompletionRequest
from frontend.openai.reply import Reply
from frontend.openai.responses.request import to_responses_job
from frontend.openai.responses.types import ResponsesRequest
from frontend.text.served_model import ServedModel
from tests.frontend.conftest import CHAT, MODEL, body
from tests.frontend.fake_triton import Events, FakeTriton, alternatives_of, log_prob_of

COMPLETIONS = "/v1/completions"
EIN, HAUS, END = 6004, 21209, 2
ALTERNATIVES = {"top_logprobs", "prompt_logprobs"}


@pytest.fixture(autouse=True)
def answer(triton: FakeTriton) -> None:
    triton.script = [Events([[EIN], [HAUS]])]


def name(mixtral: ServedModel, token_id: int) -> str:
    return mixtral.tokenizer.bytes_of(skip_special_tokens=False).get(token_id, b"").decode(errors="replace")


def named(mixtral: ServedModel, token_id: int, count: int) -> list[tuple[str, float]]:
    return [(name(mixtral, other), log_prob) for other, log_prob in alternatives_of(token_id, count)]


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_reports_the_most_likely_tokens(
    client: openai.OpenAI, triton: FakeTriton, mixtral: ServedModel, stream: bool
) -> None:
    answer: Any = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], logprobs=True, top_logprobs=3, stream=stream
    )
    choices = [choice for part in (answer if stream else [answer]) for choice in part.choices]
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert [(token.token, token.logprob) for token in tokens] == [
        (" Ein", log_prob_of(EIN) - 1),
        (" Haus", log_prob_of(HAUS) - 1),
    ]
    for token, token_id in zip(tokens, (EIN, HAUS), strict=True):
        top = [(other.token, other.logprob) for other in token.top_logprobs]
        assert top == named(mixtral, token_id, 3)
        assert [bytes(other.bytes).decode(errors="replace") for other in token.top_logprobs] == [
            text for text, _ in top
        ]
    [request] = triton.requests
    assert request["num_top_log_probs"] == 3
    assert not {"return_log_probs", "num_prompt_top_log_probs"} & request.keys()


def test_without_alternatives_the_engine_is_asked_for_chosen_tokens_only(
    http: httpx.Client, triton: FakeTriton
) -> None:
    http.post(CHAT, json=body(logprobs=True, top_logprobs=0))
    http.post(CHAT, json=body())
    with_log_probs, without = triton.requests
    assert with_log_probs["return_log_probs"] is True
    for request in triton.requests:
        assert not {"num_top_log_probs", "num_prompt_top_log_probs"} & request.keys()
    assert "return_log_probs" not in without


def test_responses_reports_the_most_likely_tokens(http: httpx.Client, mixtral: ServedModel) -> None:
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    response = http.post("/v1/responses", json={"model": MODEL, "input": "Hi", **fields}).json()
    assert response["top_logprobs"] == 2
    [part] = response["output"][0]["content"]
    tops = [[(other["token"], other["logprob"]) for other in token["top_logprobs"]] for token in part["logprobs"]]
    assert tops == [named(mixtral, EIN, 2), named(mixtral, HAUS, 2)]


@pytest.mark.parametrize("stream", [False, True])
def test_completions_list_the_token_itself_beside_the_most_likely_ones(
    http: httpx.Client, mixtral: ServedModel, stream: bool
) -> None:
    """EIN is the second most likely token in its place, HAUS the third."""
    response = http.post(COMPLETIONS, json={"model": MODEL, "prompt": "a", "logprobs": 1, "stream": stream})
    parts = chunks_of(response) if stream else [response.json()]
    logprobs = [part["choices"][0]["logprobs"] for part in parts]
    tops = [top for found in logprobs if found for top in found["top_logprobs"]]
    assert tops == [
        dict([*named(mixtral, EIN, 1), (" Ein", log_prob_of(EIN) - 1)]),
        dict([*named(mixtral, HAUS, 1), (" Haus", log_prob_of(HAUS) - 1)]),
    ]


def test_token_ids_in_place_of_text(http: httpx.Client) -> None:
    fields = {"prompt": "a", "logprobs": 1, "return_tokens_as_token_ids": True}
    [choice] = http.post(COMPLETIONS, json={"model": MODEL, **fields}).json()["choices"]
    assert choice["logprobs"]["top_logprobs"][0].keys() == {f"token_id:{EIN - 1}", f"token_id:{EIN}"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("logprobs", [0, 2])
def test_an_echoed_prompt_has_log_probabilities_from_its_second_token_on(
    http: httpx.Client, triton: FakeTriton, mixtral: ServedModel, stream: bool, logprobs: int
) -> None:
    fields = {"prompt": [EIN, HAUS, EIN], "echo": True, "logprobs": logprobs, "stream": stream}
    response = http.post(COMPLETIONS, json={"model": MODEL, **fields})
    parts = [part["choices"][0] for part in (chunks_of(response) if stream else [response.json()])]
    assert "".join(part["text"] for part in parts) == "Ein Haus Ein Ein Haus"
    found: dict[str, list[Any]] = {key: [] for key in ("tokens", "token_logprobs", "text_offset", "top_logprobs")}
    for part in parts:
        for key in found if part["logprobs"] else ():
            found[key] += part["logprobs"][key] or []
    ids = [EIN, HAUS, EIN, EIN, HAUS]
    assert found["tokens"] == [name(mixtral, token_id) for token_id in ids]
    assert found["token_logprobs"] == [None, *[log_prob_of(token_id) - 1 for token_id in ids[1:]]]
    assert found["text_offset"] == [0, 4, 9, 13, 17]
    if logprobs:
        assert found["top_logprobs"][0] is None
        assert [len(top) for top in found["top_logprobs"][1:]] == [3, 2, 2, 3]
    else:
        assert found["top_logprobs"] == []
    assert triton.requests[0]["num_prompt_top_log_probs"] == logprobs


def test_prompts_of_several_choices_are_scored_once(http: httpx.Client, triton: FakeTriton) -> None:
    fields = {"prompt": [[EIN, HAUS], [HAUS, EIN]], "echo": True, "logprobs": 1, "n": 2}
    choices = http.post(COMPLETIONS, json={"model": MODEL, **fields}).json()["choices"]
    assert [choice["logprobs"]["token_logprobs"][1] for choice in choices] == [
        log_prob_of(token_id) - 1 for token_id in (HAUS, HAUS, EIN, EIN)
    ]
    asked = sorted(tuple(request["input_ids"]) for request in triton.requests if "num_prompt_top_log_probs" in request)
    assert asked == [(EIN, HAUS), (HAUS, EIN)]


@pytest.mark.parametrize("count", [0, 3])
def test_prompt_logprobs_are_vllms_entries_with_ranks(http: httpx.Client, mixtral: ServedModel, count: int) -> None:
    fields = {"prompt": [EIN, HAUS, END], "prompt_logprobs": count}
    [choice] = http.post(COMPLETIONS, json={"model": MODEL, **fields}).json()["choices"]
    assert choice["logprobs"] is None
    first, *others = choice["prompt_logprobs"]
    assert first is None
    for entries, token_id in zip(others, (HAUS, END), strict=True):
        own: dict[str, Any] = {
            "logprob": log_prob_of(token_id) - 1,
            "rank": 1 + token_id % 3,
            "decoded_token": name(mixtral, token_id),
        }
        assert entries[str(token_id)] == own
        ranked = sorted((entry["rank"], int(key), entry["logprob"]) for key, entry in entries.items())
        top = [(rank, other, log_prob) for rank, (other, log_prob) in enumerate(alternatives_of(token_id, count), 1)]
        assert ranked == (top or [(own["rank"], token_id, own["logprob"])])
    assert next(key for entries in others for key in entries) == str(HAUS)


def test_prompt_logprobs_of_chat_stand_beside_the_choices(http: httpx.Client, triton: FakeTriton) -> None:
    completion = http.post(CHAT, json=body(prompt_logprobs=1, n=2, logprobs=True)).json()
    prompt = triton.requests[0]["input_ids"]
    assert len(completion["prompt_logprobs"]) == len(prompt)
    assert [next(iter(entries)) for entries in completion["prompt_logprobs"][1:]] == list(map(str, prompt[1:]))
    assert [len(choice["logprobs"]["content"]) for choice in completion["choices"]] == [2, 2]


CHAT_FIELDS = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("body_type", "to_job", "fields", "param"),
    [
        (ChatCompletionRequest, to_chat_job, {**CHAT_FIELDS, "logprobs": True, "top_logprobs": 1}, "top_logprobs"),
        (ChatCompletionRequest, to_chat_job, {**CHAT_FIELDS, "prompt_logprobs": 0}, "prompt_logprobs"),
        (CompletionRequest, to_completion_job, {"prompt": "a", "logprobs": 1}, "logprobs"),
        (CompletionRequest, to_completion_job, {"prompt": "a", "logprobs": 0, "echo": True}, "echo"),
        (CompletionRequest, to_completion_job, {"prompt": "a", "prompt_logprobs": 1}, "prompt_logprobs"),
        (
            ResponsesRequest,
            to_responses_job,
            {"input": "a", "include": ["message.output_text.logprobs"], "top_logprobs": 1},
            "top_logprobs",
        ),
    ],
)
def test_an_engine_that_reports_chosen_tokens_only_refuses_by_name(
    mixtral: ServedModel, body_type: Any, to_job: Any, fields: dict[str, Any], param: str
) -> None:
    without = replace(mixtral, engine=replace(mixtral.engine, honours=mixtral.engine.honours - ALTERNATIVES))
    reply = Reply(id="x", created=0, model=MODEL)
    to_job(body_type(**fields), mixtral, reply, seed=1)
    with pytest.raises(UnsupportedParameter, match="log probabilities of chosen tokens only") as caught:
        to_job(body_type(**fields), without, reply, seed=1)
    assert caught.value.param == param
