"""The frontend against the GPU model's config.pbtxt in a real Triton, with the CPU engine in place of TensorRT-LLM.

Every request goes through the inputs that the GPU host declares, with their names, types and shapes: those of
TensorRT-LLM 1.2, and the names before 0.20.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from google.protobuf import json_format, text_format
from tokenizers import Tokenizer
from tritonclient.grpc.model_config_pb2 import ModelConfig

from build_engine.checkpoint import TOKENIZER, open_checkpoint
from build_engine.errors import EngineError
from build_engine.tensorrt_llm.smoke_test.answers import HOUSE, check_answers
from build_engine.tensorrt_llm.smoke_test.cancel import check_cancel
from build_engine.tensorrt_llm.smoke_test.client import Client
from build_engine.tensorrt_llm.smoke_test.inputs import check_guided, check_inputs
from build_engine.tensorrt_llm.smoke_test.model import Model
from tests.e2e.conftest import MAX_SEQ_LEN, ROOT, SEED_MODEL, Server, at_least_once, frees_its_slot, running

SHIPPED = ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt"
OLDER_NAMES = {"seed": "random_seed", "min_tokens": "min_length"}
SEED_MESSAGES = [
    {"role": "user", "content": "You are a helpful assistant."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Was ist ein Haus?"},
]


def parse(config: Path) -> ModelConfig:
    return text_format.Parse(config.read_text(), ModelConfig())


def gpu_repository(cpu_model: Path, repository: Path, names: dict[str, str]) -> Path:
    """The CPU model's files under the GPU model's config. `names` maps names of inputs to those of older releases.

    The config gets the Python backend, the tiny model's context length, and the CPU model's parameters. The CPU model's
    code gets the same names of inputs, and it reports one reused block of the KV cache, which only TensorRT-LLM does.
    """
    model = repository / "tensorrt_llm"
    shutil.copytree(cpu_model / "1", model / "1", ignore=shutil.ignore_patterns("__pycache__"))
    config, cpu_config = parse(SHIPPED), parse(cpu_model / "config.pbtxt")
    config.backend = "python"
    for key, parameter in cpu_config.parameters.items():
        if key == "max_seq_len" or key not in config.parameters:
            config.parameters[key].CopyFrom(parameter)
    generation = model / "1" / "generation.py"
    code = generation.read_text()
    for name, older in names.items():
        (tensor,) = (tensor for tensor in config.input if tensor.name == name)
        tensor.name = older
        assert code.count(f'"{name}"') == 1
        code = code.replace(f'"{name}"', f'"{older}"')
    generation.write_text(code)
    outputs = model / "1" / "clients.py"
    times = "return {name: np.array([[value]], np.int64) for name, value in times.items()}"
    blocks = '{"kv_cache_reused_blocks": np.array([[1]], np.int32)}'
    assert outputs.read_text().count(times) == 1
    outputs.write_text(outputs.read_text().replace(times, f"{times} | {blocks}"))
    (model / "config.pbtxt").write_text(text_format.MessageToString(config))
    return repository


@pytest.fixture(scope="module", params=[{}, OLDER_NAMES], ids=["names of 1.2", "names before 0.20"])
def names(request: pytest.FixtureRequest) -> dict[str, str]:
    given: dict[str, str] = request.param
    return given


@pytest.fixture(scope="module")
def gpu_contract(
    names: dict[str, str], model_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    repository = gpu_repository(model_repository / "openvino", tmp_path_factory.mktemp("gpu_repository"), names)
    options = "--model", "tensorrt_llm", "--enable-prompt-tokens-details"
    with running(repository, tmp_path_factory.mktemp("run"), *options) as started:
        yield started


def chat(server: Server, **more: Any) -> dict[str, Any]:
    body = {"model": SEED_MODEL, "messages": SEED_MESSAGES, "max_tokens": 24, "temperature": 0, **more}
    response = httpx.post(f"{server.api}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def text(server: Server, **more: Any) -> str:
    return str(chat(server, **more)["choices"][0]["message"]["content"])


def test_triton_serves_the_tensors_that_the_gpu_host_declares(gpu_contract: Server, names: dict[str, str]) -> None:
    config = httpx.get(
        f"{gpu_contract.triton}/v2/models/tensorrt_llm/config", headers=gpu_contract.triton_headers
    ).json()
    served = json_format.ParseDict(config, ModelConfig(), ignore_unknown_fields=True)
    declared = parse(SHIPPED)
    for tensor in declared.input:
        tensor.name = names.get(tensor.name, tensor.name)
    assert list(served.input) == list(declared.input)
    assert list(served.output) == list(declared.output)
    assert served.max_batch_size == declared.max_batch_size
    assert served.model_transaction_policy.decoupled


def test_the_answer_equals_that_of_the_cpu_model(gpu_contract: Server, server: Server) -> None:
    ours, theirs = chat(gpu_contract), chat(server)
    assert ours["choices"] == theirs["choices"]
    # One block of 32 tokens was reused. Reported are at most the tokens of the prompt, without its last one.
    assert ours["usage"].pop("prompt_tokens_details") == {"cached_tokens": theirs["usage"]["prompt_tokens"] - 1}
    assert theirs["usage"]["prompt_tokens"] <= 32
    assert ours["usage"] == theirs["usage"]
    assert ours["model"] == SEED_MODEL
    assert ours["usage"]["prompt_tokens"] > 0


def test_a_stream_has_the_text_of_the_complete_answer(gpu_contract: Server) -> None:
    body = {"model": SEED_MODEL, "messages": SEED_MESSAGES, "max_tokens": 24, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{gpu_contract.api}/v1/chat/completions", json=body, timeout=60) as response:
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    deltas = [httpx.Response(200, text=line).json()["choices"][0]["delta"].get("content") or "" for line in lines]
    assert "".join(deltas) == text(gpu_contract)


def test_a_seed_reaches_the_engine(gpu_contract: Server) -> None:
    sampling = {"temperature": 1.5, "max_tokens": 16}
    first = text(gpu_contract, seed=11, **sampling)
    assert text(gpu_contract, seed=11, **sampling) == first
    assert text(gpu_contract, seed=12, **sampling) != first


def test_min_tokens_reach_triton_under_the_declared_name(gpu_contract: Server) -> None:
    assert chat(gpu_contract, min_tokens=24)["usage"]["completion_tokens"] == 24


def test_every_sampling_parameter_has_an_input(gpu_contract: Server) -> None:
    chosen = {"temperature": 0.9, "top_p": 0.8, "top_k": 40, "seed": 3, "min_tokens": 2, "ignore_eos": True}
    penalties = {"presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.1}
    assert chat(gpu_contract, **chosen, **penalties)["usage"]["completion_tokens"] == 24


def test_a_client_that_disconnects_frees_its_slot(gpu_contract: Server) -> None:
    body = {"model": SEED_MODEL, "messages": SEED_MESSAGES, "max_tokens": 400, "ignore_eos": True, "stream": True}

    @contextmanager
    def client() -> Iterator[None]:
        with httpx.stream("POST", f"{gpu_contract.api}/v1/chat/completions", json=body, timeout=60) as response:
            # The iterator is kept: without a reference to it httpx closes the connection before the request is counted.
            lines = response.iter_lines()
            next(lines)
            yield

    assert at_least_once(lambda: frees_its_slot(gpu_contract, client, "tensorrt_llm")), "the engine went on to the end"


NOT_ON_A_CPU = {"embedding_bias", "return_perf_metrics", "stop"}
"""Inputs that the GPU model declares and the CPU engine behind it does not read, or not completely."""


@pytest.fixture
def smoke_model(gpu_contract: Server, names: dict[str, str], tiny_checkpoint: Path) -> Model:
    """The served model as the smoke test of a GPU build sees it."""
    checkpoint = open_checkpoint(tiny_checkpoint)
    optional = {tensor.name for tensor in parse(SHIPPED).input if tensor.optional}
    return Model(
        client=Client(
            http_port=port_of(gpu_contract.triton),
            metrics_port=port_of(gpu_contract.metrics),
            headers=gpu_contract.triton_headers,
        ),
        tokenizer=Tokenizer.from_file(str(tiny_checkpoint / TOKENIZER)),
        vocab_size=checkpoint.config.vocab_size,
        end_tokens=checkpoint.end_tokens,
        max_seq_len=MAX_SEQ_LEN,
        optional=frozenset(optional - NOT_ON_A_CPU - names.keys()),
        gathers_logits=False,
    )


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def test_the_smoke_test_of_a_build_passes_on_a_real_engine(smoke_model: Model) -> None:
    """All of it that the CPU engine can answer. Its weights are random, so its answers are shown and not judged."""
    request = smoke_model.request(HOUSE.text, return_log_probs=True)
    *_, idle = check_cancel(smoke_model, request, smoke_model.generate(request))
    assert idle.startswith("cancel: no request is active ")
    assert len(list(check_answers(smoke_model, judged=False))) == 4
    assert any(line.startswith("answered with each input: end_id, ") for line in check_inputs(smoke_model))
    (guided,) = check_guided(smoke_model)
    assert guided.endswith(", ended by the grammar")


def test_the_smoke_test_of_a_build_refuses_random_weights(smoke_model: Model) -> None:
    with pytest.raises(EngineError, match=r"has a mean log probability of -[4-9].*; accepted: at least -1\.5"):
        list(check_answers(smoke_model, judged=True))
