"""Routes that tokenize, detokenize and render a prompt, without generating."""

import httpx
import pytest

from tests.frontend.conftest import MODEL, body, error_of
from tests.frontend.fake_triton import FakeTriton


def test_text_is_tokenized_as_a_completions_prompt_is(http: httpx.Client) -> None:
    assert http.post("/tokenize", json={"prompt": "Ein Haus"}).json() == {
        "count": 3,
        "max_model_len": 4096,
        "tokens": [1, 6004, 21209],
    }
    assert http.post("/tokenize", json={"prompt": "Ein", "add_special_tokens": False}).json()["tokens"] == [6004]


def test_tokens_are_written_out_if_asked_for(http: httpx.Client) -> None:
    answer = http.post("/tokenize", json={"prompt": "Ein Haus", "return_token_strs": True}).json()
    assert answer["token_strs"] == ["<s>", "▁Ein", "▁Haus"]


def test_tokenizer_info_is_the_tokenizers_config_with_the_template(http: httpx.Client) -> None:
    assert http.get("/tokenizer_info").json() == {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "chat_template": "{{ messages }}",
    }


def test_a_conversation_is_tokenized_as_the_engine_gets_it(http: httpx.Client, triton: FakeTriton) -> None:
    messages = [{"role": "system", "content": "Sei kurz."}, {"role": "user", "content": "Was ist ein <s> Haus?"}]
    http.post("/v1/chat/completions", json=body(messages=messages))
    sent = triton.requests[0]["input_ids"]
    assert http.post("/tokenize", json={"messages": messages}).json()["tokens"] == sent
    rendered = http.post("/v1/chat/completions/render", json=body(messages=messages)).json()
    assert rendered == {
        "prompt": "<s>[INST] Sei kurz.\n\nWas ist ein <s> Haus? [/INST]",
        "prompt_token_ids": sent,
    }


def test_detokenize_writes_special_tokens_out(http: httpx.Client) -> None:
    answer = http.post("/detokenize", json={"tokens": [1, 6004, 21209, 2]})
    assert answer.json() == {"prompt": "<s> Ein Haus</s>"}


@pytest.mark.parametrize(
    ("path", "fields", "status", "param"),
    [
        ("/tokenize", {}, 400, None),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, 400, None),
        ("/tokenize", {"prompt": "a", "model": "other"}, 404, "model"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [32000]}, 400, "tokens"),
        ("/detokenize", {"tokens": [1], "model": "other"}, 404, "model"),
        ("/v1/chat/completions/render", {"model": MODEL, "messages": []}, 400, "messages"),
    ],
)
def test_invalid_request_is_refused_by_field(
    http: httpx.Client, path: str, fields: dict[str, object], status: int, param: str | None
) -> None:
    assert error_of(http.post(path, json=fields), status)["param"] == param
