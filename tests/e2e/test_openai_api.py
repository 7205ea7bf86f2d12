"""OpenAI's API on a real Triton and engine, called with OpenAI's client, against an independent forward pass."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from mistral_common.protocol.instruct.messages import SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from numpy.typing import NDArray
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer

from tests.e2e.conftest import (
    MAX_BATCH_SIZE,
    MAX_SEQ_LEN,
    SEED_MODEL,
    Server,
    at_least_once,
    frees_its_slot,
    running,
    wait_for,
)
from tests.reference_mixtral import ReferenceMixtral
from tests.tiny_mixtral import TINY, tiny_tensors

CHAT = "/v1/chat/completions"
FIRST_REQUEST = """{
    "model": "/opt/models/casperhansen/mixtral-instruct-awq",
    "messages": [
      {
        "role": "user",
        "content": "You are a helpful assistant."
      },
      {
        "role": "assistant",
        "content": "Hello!"
      },
      {
        "role": "user",
        "content": "Was ist ein Haus?"
      }
    ]
  }"""
NUM_CLIENTS = 64


def user(text: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": text}


def body(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": SEED_MODEL, "messages": [user(text)], "temperature": 0, **fields}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.api}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def async_client(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.api}/v1", api_key="none", max_retries=0, timeout=60)


def complete(client: openai.OpenAI, text: str, **fields: Any) -> ChatCompletion:
    answer: ChatCompletion = client.chat.completions.create(**body(text, **fields))
    return answer


def text_of(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


async def streamed(client: openai.AsyncOpenAI, text: str, **fields: Any) -> str:
    chunks = await client.chat.completions.create(**body(text, stream=True, **fields))
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


def prompt_ids(*messages: UserMessage | SystemMessage) -> list[int]:
    tokens: list[int] = MistralTokenizer.v1().encode_chat_completion(ChatCompletionRequest(messages=[*messages])).tokens
    return tokens


@pytest.fixture(scope="module")
def reference() -> ReferenceMixtral:
    return ReferenceMixtral(TINY, tiny_tensors(TINY))


@pytest.fixture(scope="module")
def tokenizer(mixtral_tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(mixtral_tokenizer_dir / "tokenizer.json"))


def decoded(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    """The text of token ids that continue another text. At the start of one the tokenizer drops the first space."""
    (before,) = tokenizer.encode("a", add_special_tokens=False).ids
    return str(tokenizer.decode([before, *token_ids])).removeprefix("a")


def test_the_first_request_is_answered_with_vllms_fields_in_vllms_order(server: Server) -> None:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer anything"}
    response = httpx.post(server.api + CHAT, content=FIRST_REQUEST, headers=headers, timeout=60)
    assert response.status_code == 200
    answer = response.json()
    (choice,) = answer["choices"]
    assert list(answer) == ["id", "object", "created", "model", "choices", "usage"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason", "stop_reason"]
    assert list(choice["message"]) == ["role", "content"]
    assert list(answer["usage"]) == ["prompt_tokens", "total_tokens", "completion_tokens"]
    assert (answer["object"], answer["model"]) == ("chat.completion", SEED_MODEL)
    assert (choice["index"], choice["message"]["role"], choice["stop_reason"]) == (0, "assistant", None)
    assert answer["usage"]["prompt_tokens"] == 29
    assert answer["usage"]["total_tokens"] == 29 + answer["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("question", "first"),
    [
        pytest.param("Was ist ein Haus?", "cam", id="begins within a word"),
        pytest.param("Hi", " Run", id="begins with a space and holds a broken character"),
    ],
)
def test_greedy_text_equals_the_independent_forward(
    client: openai.OpenAI, reference: ReferenceMixtral, tokenizer: Tokenizer, question: str, first: str
) -> None:
    prompt = prompt_ids(UserMessage(content=question))
    expected = decoded(tokenizer, reference.greedy(prompt, 32))
    answer = complete(client, question, max_tokens=32)
    assert text_of(answer) == expected
    assert expected.startswith(first)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), 32)
    assert answer.usage.total_tokens == len(prompt) + 32


def test_a_stream_has_the_text_and_the_usage_of_the_complete_answer(client: openai.OpenAI) -> None:
    expected = complete(client, "Hi", max_tokens=32)
    request = body("Hi", max_tokens=32, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(client.chat.completions.create(**request))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text_of(expected)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len(chunks) > 16, "the text should arrive as it is generated"
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert (last.choices, last.usage) == ([], expected.usage)


def test_the_asynchronous_client_gets_the_same(server: Server, client: openai.OpenAI) -> None:
    async def both() -> tuple[str, str]:
        async with async_client(server) as clients:
            answer = await clients.chat.completions.create(**body("Hi", max_tokens=32))
            return text_of(answer), await streamed(clients, "Hi", max_tokens=32)

    expected = text_of(complete(client, "Hi", max_tokens=32))
    assert asyncio.run(both()) == (expected, expected)


def test_without_max_tokens_the_answer_fills_the_context(client: openai.OpenAI) -> None:
    answer = complete(client, "Hi", extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == MAX_SEQ_LEN


def test_64_concurrent_streams_have_the_text_of_one_at_a_time(server: Server) -> None:
    """The engine has 8 slots; the other requests wait in the frontend's queue."""
    questions = [f"What is {number} times {number + 1}?" for number in range(NUM_CLIENTS)]

    async def one_by_one() -> list[str]:
        async with async_client(server) as client:
            return [await streamed(client, question, max_tokens=20) for question in questions]

    async def at_once() -> tuple[list[str], float]:
        async with async_client(server) as client:
            streams = asyncio.gather(*(streamed(client, question, max_tokens=20) for question in questions))
            most_active = 0.0
            while not streams.done():
                most_active = max(most_active, await asyncio.to_thread(server.active))
            return await streams, most_active

    expected = asyncio.run(one_by_one())
    assert len(set(expected)) == NUM_CLIENTS

    def all_slots_taken() -> bool:
        texts, most_active = asyncio.run(at_once())
        assert texts == expected
        assert most_active <= MAX_BATCH_SIZE
        return most_active == MAX_BATCH_SIZE

    assert at_least_once(all_slots_taken)


def test_a_late_request_joins_the_running_batch(server: Server) -> None:
    async def ask() -> tuple[int, int]:
        async with async_client(server) as client:
            num_received = 0

            async def read_long() -> None:
                nonlocal num_received
                request = body(stream=True, extra_body={"ignore_eos": True})
                async for _ in await client.chat.completions.create(**request):
                    num_received += 1

            long = asyncio.create_task(read_long())
            while num_received < 10:
                await asyncio.sleep(0.001)
            await streamed(client, "Ha", max_tokens=4)
            received_before = num_received
            await long
            return received_before, num_received

    def joined() -> bool:
        received_before, received = asyncio.run(ask())
        assert received > 400
        return received_before < received / 2

    assert at_least_once(joined), "the late request waited for the first to finish"


def test_a_seed_fixes_what_is_sampled(client: openai.OpenAI) -> None:
    def sample(**fields: Any) -> str:
        return text_of(complete(client, "Hi", max_tokens=16, **{"temperature": 1.5, **fields}))

    assert sample(seed=11) == sample(seed=11)
    assert sample(seed=12) != sample(seed=11)
    assert sample() != sample()
    assert sample(seed=11, temperature=0) == sample(seed=12, temperature=0)


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])
def test_a_stop_string_cuts_the_answer_before_it(server: Server, client: openai.OpenAI, stream: bool) -> None:
    text = text_of(complete(client, "Hi", max_tokens=32))
    middle = len(text) // 2
    stop = text[middle : middle + 9]
    response = httpx.post(server.api + CHAT, json=body("Hi", max_tokens=32, stop=["never", stop], stream=stream))
    assert content(response, stream) == text[: text.index(stop)]
    assert f'"finish_reason":"stop","stop_reason":{json.dumps(stop, ensure_ascii=False)}' in response.text
    wait_for(lambda: server.active() == 0, "the slot to be freed")


def content(response: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(response.json()["choices"][0]["message"]["content"])
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n")[:-2]]
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])
def test_a_client_that_disconnects_frees_its_slot(server: Server, stream: bool) -> None:
    payload = json.dumps(body(stream=stream, ignore_eos=True, max_tokens=400)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}"
    host, _, port = server.api.removeprefix("http://").partition(":")

    @contextmanager
    def client() -> Iterator[None]:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + payload)
            yield

    assert at_least_once(lambda: frees_its_slot(server, client, "openvino")), "the engine went on to the end"


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([("system", "Antworte kurz."), ("user", "Was ist ein Haus?")], id="system"),
        pytest.param([("user", "Eine Frage."), ("user", "Was ist ein Haus?")], id="consecutive user messages"),
    ],
)
def test_conversations_that_the_checkpoints_template_refuses_follow_mistral_common(
    client: openai.OpenAI,
    reference: ReferenceMixtral,
    tokenizer: Tokenizer,
    messages: list[tuple[str, str]],
) -> None:
    types: dict[str, type[SystemMessage | UserMessage]] = {"system": SystemMessage, "user": UserMessage}
    prompt = prompt_ids(*(types[role](content=text) for role, text in messages))
    request = body(max_tokens=8) | {"messages": [{"role": role, "content": text} for role, text in messages]}
    answer: ChatCompletion = client.chat.completions.create(**request)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt)
    assert text_of(answer) == decoded(tokenizer, reference.greedy(prompt, 8))


def test_metrics_have_vllms_names_and_triton_s_kv_cache(server: Server, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=SEED_MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=3)
    samples = {
        sample.name: sample
        for family in text_string_to_metric_families(httpx.get(f"{server.api}/metrics").text)
        for sample in family.samples
    }
    assert samples["vllm:generation_tokens_total"].value >= 3
    assert samples["vllm:gpu_cache_usage_perc"].labels == {"model_name": SEED_MODEL, "engine": "0"}
    num_blocks = samples["vllm:cache_config_info"].labels["num_gpu_blocks"]
    assert int(num_blocks) == server.gauge("nv_trt_llm_kv_cache_block_metrics", "max")


def test_an_unknown_model_is_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=f"`gpt-4` does not exist. Served here: `{SEED_MODEL}`") as error:
        complete(client, "Hi", model="gpt-4")
    assert error.value.code == "model_not_found"


def test_an_unsupported_parameter_is_400_with_its_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="`best_of` is not supported") as error:
        complete(client, "Hi", extra_body={"best_of": 2})
    assert error.value.param == "best_of"


def test_a_parameter_that_only_the_gpu_engine_supports_is_400_with_its_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="The loaded engine cannot honour `logit_bias`"):
        complete(client, "Hi", logit_bias={"5": 1})


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_equal_the_independent_forward(
    client: openai.OpenAI, reference: ReferenceMixtral, stream: bool
) -> None:
    prompt = prompt_ids(UserMessage(content="Hi"))
    expected: list[float] = []
    for token_id in reference.greedy(prompt, 8):
        logits = reference.logits(prompt)[-1]
        expected.append(float(logits[token_id] - np.logaddexp.reduce(logits)))
        prompt = [*prompt, token_id]
    answers = client.chat.completions.create(**body("Hi", max_tokens=8, logprobs=True, stream=stream))
    parts = [part for answer in answers for part in answer.choices] if stream else answers.choices
    reported = [token.logprob for part in parts if part.logprobs for token in part.logprobs.content or []]
    assert reported == pytest.approx(expected, abs=0.05)


def log_probs_after(reference: ReferenceMixtral, token_ids: list[int]) -> list[NDArray[np.float64]]:
    """For each token, the log probabilities of what may follow it: [vocabulary]."""
    return [row - np.logaddexp.reduce(row) for row in reference.logits(token_ids)]


@pytest.mark.parametrize("stream", [False, True])
def test_alternatives_equal_the_independent_forward_before_temperature_and_penalties(
    client: openai.OpenAI, reference: ReferenceMixtral, stream: bool
) -> None:
    sampled = {"temperature": 1.7, "top_p": 0.9, "frequency_penalty": 1.0, "presence_penalty": 1.0, "seed": 4}
    fields = {"logprobs": True, "top_logprobs": 20, "max_tokens": 24, "return_tokens_as_token_ids": True}
    answers = client.chat.completions.create(**body("Hi", stream=stream, **sampled, extra_body=fields))
    parts = [part for answer in answers for part in answer.choices] if stream else answers.choices
    reported = [token for part in parts if part.logprobs for token in part.logprobs.content or []]
    token_ids = [int(token.token.removeprefix("token_id:")) for token in reported]
    prompt = prompt_ids(UserMessage(content="Hi"))
    assert len(token_ids) == 24
    for row, token, token_id in zip(
        log_probs_after(reference, [*prompt, *token_ids])[len(prompt) - 1 :], reported, token_ids, strict=False
    ):
        assert token.logprob == pytest.approx(row[token_id], abs=1e-3)
        assert [other.logprob for other in token.top_logprobs] == pytest.approx(np.sort(row)[-20:][::-1], abs=1e-3)
        for other in token.top_logprobs:
            assert other.logprob == pytest.approx(row[int(other.token.removeprefix("token_id:"))], abs=1e-3)


def test_an_answer_is_the_same_with_alternatives_and_without(client: openai.OpenAI) -> None:
    with_alternatives = complete(client, "Hi", max_tokens=16, logprobs=True, top_logprobs=2)
    assert text_of(with_alternatives) == text_of(complete(client, "Hi", max_tokens=16))
    assert with_alternatives.choices[0].logprobs is not None
    assert len(with_alternatives.choices[0].logprobs.content or ()) == 16


@pytest.mark.parametrize("stream", [False, True])
def test_an_echoed_prompt_of_several_pieces_equals_the_independent_forward(
    client: openai.OpenAI, reference: ReferenceMixtral, stream: bool
) -> None:
    prompt = [1, *np.random.default_rng(3).integers(3, TINY["vocab_size"], 199).tolist()]
    answer: Any = client.completions.create(
        model=SEED_MODEL, prompt=prompt, echo=True, logprobs=3, max_tokens=2, temperature=0, stream=stream,
        extra_body={"ignore_eos": True, "return_tokens_as_token_ids": True},
    )  # fmt: skip
    choices = [choice for part in (answer if stream else [answer]) for choice in part.choices]
    found = [choice.logprobs for choice in choices if choice.logprobs]
    token_ids = [int(token.removeprefix("token_id:")) for part in found for token in part.tokens]
    log_probs = [log_prob for part in found for log_prob in part.token_logprobs]
    tops = [top for part in found for top in part.top_logprobs]
    assert token_ids[:200] == prompt
    assert (len(token_ids), log_probs[0], tops[0]) == (202, None, None)
    for row, token_id, log_prob, top in zip(
        log_probs_after(reference, token_ids), token_ids[1:], log_probs[1:], tops[1:], strict=False
    ):
        assert log_prob == pytest.approx(row[token_id], abs=1e-3)
        assert sorted(top.values())[-3:] == pytest.approx(np.sort(row)[-3:], abs=1e-3)


def test_prompt_logprobs_have_the_ranks_of_the_independent_forward(server: Server, reference: ReferenceMixtral) -> None:
    fields = {**body("Was ist ein Haus?"), "max_tokens": 1, "prompt_logprobs": 2}
    answer = httpx.post(f"{server.api}/v1/chat/completions", json=fields, timeout=60).json()
    prompt = prompt_ids(UserMessage(content="Was ist ein Haus?"))
    first, *others = answer["prompt_logprobs"]
    assert first is None
    for row, token_id, entries in zip(log_probs_after(reference, prompt), prompt[1:], others, strict=False):
        by_rank = np.argsort(-row)
        for key, entry in entries.items():
            assert entry["logprob"] == pytest.approx(row[int(key)], abs=1e-3)
            assert row[by_rank[entry["rank"] - 1]] == pytest.approx(row[int(key)], abs=1e-3)
        assert str(token_id) in entries
        assert {entry["rank"] for entry in entries.values()} >= {1, 2}


def test_n_answers_are_sampled_with_consecutive_seeds(client: openai.OpenAI) -> None:
    sampled = {"temperature": 1.5, "max_tokens": 8}
    both = complete(client, "Hi", n=2, seed=5, **sampled)
    alone = [text_of(complete(client, "Hi", seed=seed, **sampled)) for seed in (5, 6)]
    assert [choice.message.content for choice in both.choices] == alone
    assert alone[0] != alone[1]


@pytest.mark.parametrize(
    ("question", "fields", "message"),
    [
        pytest.param(
            "Hi", {"max_tokens": 504}, r"is 512 tokens. However, you requested 513 tokens \(9 in", id="answer"
        ),
        pytest.param("a " * 600, {}, "is 512 tokens. However, you requested 609 tokens in the messages", id="prompt"),
    ],
)
def test_more_than_the_context_is_400_with_the_numbers(
    client: openai.OpenAI, question: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as error:
        complete(client, question, **fields)
    assert error.value.code == "context_length_exceeded"


def test_a_request_beyond_the_queue_is_429_with_retry_after(model_repository: Path, tmp_path: Path) -> None:
    async def ask(server: Server) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.api, timeout=60) as client:
            request = body(max_tokens=200, ignore_eos=True)
            return await asyncio.gather(*(client.post(CHAT, json=request) for _ in range(16)))

    with running(model_repository, tmp_path, "--max-queue-length", "1") as server:
        responses = asyncio.run(ask(server))
    refused = [response for response in responses if response.status_code == 429]
    assert sum(response.status_code == 200 for response in responses) == MAX_BATCH_SIZE + 1
    assert len(refused) == 16 - MAX_BATCH_SIZE - 1
    assert {response.headers["retry-after"] for response in refused} == {"1"}
    assert {response.json()["error"]["code"] for response in refused} == {"rate_limit_exceeded"}
