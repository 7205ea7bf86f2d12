"""Every kind of stream event, byte for byte: clients rely on details as small as a null that is sent or left out."""

import json
from typing import Any

import httpx
import pytest

from tests.frontend.conftest import CHAT, MODEL, body
from tests.frontend.fake_triton import Events, FakeTriton

COMPLETIONS = "/v1/completions"
EIN, HAUS = 6004, 21209
DONE = "data: [DONE]"
FINISH = '{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}'
EIN_LOGPROB = '{"token":" Ein","logprob":-6.5,"bytes":[32,69,105,110],"top_logprobs":[]}'
HAUS_LOGPROB = '{"token":" Haus","logprob":-3.125,"bytes":[32,72,97,117,115],"top_logprobs":[]}'


@pytest.fixture(autouse=True)
def _haus(triton: FakeTriton) -> None:
    """Two tokens, in two responses."""
    triton.script = [Events([[EIN], [HAUS]], pause_s=0.02, bytes_per_write=100)]


def choices_of(response: httpx.Response, kind: str) -> list[str]:
    """The data of each event from the first choice on. The fields before it are the same in all events."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, rest = response.text.split("\n\n")
    assert rest == ""
    first = json.loads(events[0].removeprefix("data: "))
    head = f'data: {{"id":"{first["id"]}","object":"{kind}","created":{first["created"]},"model":"{MODEL}",'
    assert first["id"].removeprefix("cmpl-").isalnum()
    assert all(event.startswith(head) for event in events if event != DONE and not event.startswith('data: {"error"'))
    return [event.removeprefix(head).removeprefix('"choices":[') for event in events]


def chat(http: httpx.Client, **fields: Any) -> list[str]:
    return choices_of(http.post(CHAT, json=body(stream=True, stop_token_ids=[4], **fields)), "chat.completion.chunk")


def complete(http: httpx.Client, **fields: Any) -> list[str]:
    fields = {"model": MODEL, "prompt": "Hi", "stream": True, "stop_token_ids": [4], **fields}
    return choices_of(http.post(COMPLETIONS, json=fields), "text_completion")


def role(index: int = 0) -> str:
    return f'{{"index":{index},"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}'


def text(content: str, *, index: int = 0, logprobs: str = "null", finish: str = "null") -> str:
    return f'{{"index":{index},"delta":{{"content":"{content}"}},"logprobs":{logprobs},"finish_reason":{finish}}}'


def usage(completion_tokens: int, prompt_tokens: int) -> str:
    total = prompt_tokens + completion_tokens
    return f'{{"prompt_tokens":{prompt_tokens},"total_tokens":{total},"completion_tokens":{completion_tokens}}}'


# ---- chat ----------------------------------------------------------------------------------------------------------


def test_a_stream_is_role_text_finish_reason_and_done(http: httpx.Client) -> None:
    assert chat(http) == [f"{role()}]}}", f"{text(' Ein')}]}}", f"{text(' Haus')}]}}", f"{FINISH}]}}", DONE]


def test_the_last_chunk_names_the_stop_string(http: httpx.Client) -> None:
    assert chat(http, stop="aus")[-2:] == [
        '{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":"aus"}]}',
        DONE,
    ]


def test_the_last_chunk_names_the_stop_token(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[EIN], [4]])]
    assert chat(http)[-2:] == ['{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":4}]}', DONE]


def test_the_finish_reason_is_length_at_max_tokens(http: httpx.Client) -> None:
    assert chat(http, max_tokens=2)[-2] == '{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}'


def test_log_probabilities_come_with_their_text(http: httpx.Client) -> None:
    assert chat(http, logprobs=True) == [
        f"{role()}]}}",
        text(" Ein", logprobs=f'{{"content":[{EIN_LOGPROB}],"refusal":null}}') + "]}",
        text(" Haus", logprobs=f'{{"content":[{HAUS_LOGPROB}],"refusal":null}}') + "]}",
        f"{FINISH}]}}",
        DONE,
    ]


def test_log_probabilities_of_a_partial_character_come_with_the_complete_one(
    http: httpx.Client, triton: FakeTriton
) -> None:
    triton.script = [Events([[3 + byte] for byte in "é".encode()], pause_s=0.02, bytes_per_write=100)]
    first, second = [
        f'{{"content":[{{"token":"\ufffd","logprob":{-((3 + byte) % 64) / 8},"bytes":[{byte}],"top_logprobs":[]}}],'
        '"refusal":null}'
        for byte in "é".encode()
    ]
    both = first.removesuffix('],"refusal":null}') + "," + second.removeprefix('{"content":[')
    assert chat(http, logprobs=True)[1:-2] == [text("é", logprobs=both) + "]}"]


def test_usage_comes_last_and_is_null_in_the_events_before(http: httpx.Client) -> None:
    null = '],"usage":null}'
    assert chat(http, stream_options={"include_usage": True}) == [
        role() + null,
        text(" Ein") + null,
        text(" Haus") + null,
        FINISH + null,
        f'],"usage":{usage(2, 9)}}}',
        DONE,
    ]


def test_continuous_usage_is_in_every_event(http: httpx.Client) -> None:
    options = {"continuous_usage_stats": True, "include_usage": True}
    assert chat(http, stream_options=options) == [
        f'{role()}],"usage":{usage(0, 9)}}}',
        f'{text(" Ein")}],"usage":{usage(1, 9)}}}',
        f'{text(" Haus")}],"usage":{usage(2, 9)}}}',
        f'{FINISH}],"usage":{usage(2, 9)}}}',
        f'],"usage":{usage(2, 9)}}}',
        DONE,
    ]


def test_continuous_usage_without_include_usage_sends_none_as_in_vllm(http: httpx.Client) -> None:
    options = {"continuous_usage_stats": True}
    assert chat(http, stream_options=options) == [
        *[event + "]}" for event in (role(), text(" Ein"), text(" Haus"), FINISH)],
        DONE,
    ]


def test_each_of_n_answers_has_its_role_and_its_finish_reason(http: httpx.Client) -> None:
    events = chat(http, n=2, stream_options={"include_usage": True})
    null = '],"usage":null}'
    assert events[:2] == [role(0) + null, role(1) + null]
    for index in (0, 1):
        assert [event for event in events if event.startswith(f'{{"index":{index},')] == [
            role(index) + null,
            text(" Ein", index=index) + null,
            text(" Haus", index=index) + null,
            FINISH.replace('"index":0', f'"index":{index}') + null,
        ]
    assert events[-2:] == [f'],"usage":{usage(4, 9)}}}', DONE]
    assert len(events) == 10


def test_token_ids_of_the_prompt_come_first_and_those_of_the_answer_with_their_text(http: httpx.Client) -> None:
    start, ein, haus, *_ = chat(http, return_token_ids=True)
    ids = [1, 733, 16289, 28793, 15359, 733, 28748, 16289, 28793]
    assert start == f'"prompt_token_ids":{json.dumps(ids, separators=(",", ":"))},"choices":[{role()}]}}'
    assert ein == text(" Ein").removesuffix("}") + f',"token_ids":[{EIN}]}}]}}'
    assert haus == text(" Haus").removesuffix("}") + f',"token_ids":[{HAUS}]}}]}}'


def test_text_is_escaped_as_json_and_not_otherwise_changed(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[3 + byte for byte in '"\n\\\x00\x7f\u2028ü🚀'.encode()]])]
    assert chat(http)[1] == text('\\"\\n\\\\\\u0000\x7f\u2028ü🚀') + "]}"


def test_an_engine_failure_is_an_error_object_and_ends_the_stream(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[EIN]], pause_s=0.1), Events(["boom"])]
    assert chat(http) == [
        f"{role()}]}}",
        f"{text(' Ein')}]}}",
        'data: {"error":{"message":"The engine could not complete the request.","type":"server_error","param":null,'
        '"code":null}}',
    ]


# ---- completions ---------------------------------------------------------------------------------------------------


def piece(content: str, *, index: int = 0, logprobs: str = "null", finish: str = "null", stop: str = "null") -> str:
    return f'{{"index":{index},"text":"{content}","logprobs":{logprobs},"finish_reason":{finish},"stop_reason":{stop}}}'


def test_a_completion_stream_is_text_finish_reason_and_done(http: httpx.Client) -> None:
    assert complete(http) == [
        piece(" Ein") + "]}",
        piece(" Haus") + "]}",
        piece("", finish='"stop"') + "]}",
        DONE,
    ]


@pytest.mark.parametrize(
    ("fields", "responses", "finish", "stop"),
    [
        ({"stop": "aus"}, [[EIN], [HAUS]], "stop", '"aus"'),
        ({}, [[EIN], [4]], "stop", "4"),
        ({"max_tokens": 2}, [[EIN], [HAUS]], "length", "null"),
    ],
    ids=["stop string", "stop token", "length"],
)
def test_the_last_chunk_of_a_completion_has_finish_reason_and_stop_reason(
    http: httpx.Client, triton: FakeTriton, fields: dict[str, Any], responses: list[Any], finish: str, stop: str
) -> None:
    triton.script = [Events(responses)]
    assert complete(http, **fields)[-2:] == [piece("", finish=f'"{finish}"', stop=stop) + "]}", DONE]


def test_log_probabilities_of_a_completion_have_text_offsets(http: httpx.Client) -> None:
    def logprobs(offset: int, logprob: float, token: str) -> str:
        return f'{{"text_offset":[{offset}],"token_logprobs":[{logprob}],"tokens":["{token}"],"top_logprobs":null}}'

    assert complete(http, logprobs=0) == [
        piece(" Ein", logprobs=logprobs(0, -6.5, " Ein")) + "]}",
        piece(" Haus", logprobs=logprobs(4, -3.125, " Haus")) + "]}",
        piece("", finish='"stop"') + "]}",
        DONE,
    ]


def test_tokens_of_log_probabilities_may_be_ids_as_in_vllm(http: httpx.Client) -> None:
    assert '"tokens":["token_id:21209"]' in complete(http, logprobs=0, return_tokens_as_token_ids=True)[1]
    events = chat(http, logprobs=True, return_tokens_as_token_ids=True)
    assert '{"token":"token_id:21209","logprob":-3.125,"bytes":[32,72,97,117,115],' in events[2]


def test_usage_of_a_completion_comes_last(http: httpx.Client) -> None:
    null = '],"usage":null}'
    assert complete(http, stream_options={"include_usage": True}) == [
        piece(" Ein") + null,
        piece(" Haus") + null,
        piece("", finish='"stop"') + null,
        f'],"usage":{usage(2, 2)}}}',
        DONE,
    ]


def test_continuous_usage_of_a_completion_is_in_every_event(http: httpx.Client) -> None:
    assert complete(http, stream_options={"continuous_usage_stats": True, "include_usage": True}) == [
        f'{piece(" Ein")}],"usage":{usage(1, 2)}}}',
        f'{piece(" Haus")}],"usage":{usage(2, 2)}}}',
        f'{piece("", finish=chr(34) + "stop" + chr(34))}],"usage":{usage(2, 2)}}}',
        f'],"usage":{usage(2, 2)}}}',
        DONE,
    ]


def test_prompts_are_echoed_first_and_answered_by_index(http: httpx.Client) -> None:
    events = complete(http, prompt=["a", "b"], echo=True)
    assert events[:2] == [piece("a") + "]}", piece("b", index=1) + "]}"]
    for index, echo in enumerate("ab"):
        assert [event for event in events if event.startswith(f'{{"index":{index},')] == [
            piece(echo, index=index) + "]}",
            piece(" Ein", index=index) + "]}",
            piece(" Haus", index=index) + "]}",
            piece("", index=index, finish='"stop"') + "]}",
        ]
    assert events[-1] == DONE


def test_an_engine_failure_ends_a_completion_stream(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[EIN]], pause_s=0.1), Events(["boom"])]
    assert complete(http) == [
        piece(" Ein") + "]}",
        'data: {"error":{"message":"The engine could not complete the request.","type":"server_error","param":null,'
        '"code":null}}',
    ]
