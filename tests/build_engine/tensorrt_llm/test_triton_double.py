"""The double of Triton is as strict as the real one: options, engine, inputs, outputs, and the end of a grammar.

Where no TensorRT-LLM is needed, a real Triton with a Python model behind the same config.pbtxt is asked the same.
"""

import dataclasses
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from build_engine.checkpoint import Checkpoint
from build_engine.tensorrt_llm.commands import Toolchain, flags_of, serve_command
from build_engine.tensorrt_llm.smoke_test.client import Client
from build_engine.tensorrt_llm.smoke_test.triton import write_repository
from frontend.local.tritonserver import TritonSettings, triton_command
from tests.build_engine.tensorrt_llm.conftest import GpuHost
from tests.build_engine.tensorrt_llm.staged_engine import load_double, served, serving_of, write_config, write_engine
from tests.doubles import tritonserver
from tests.doubles.tensorrtllm_backend import PERF_METRICS, Backend
from tests.doubles.triton_core import LoadError

PYTHON_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            token = pb_utils.Tensor("output_ids", np.array([[[7]]], np.int32))
            length = pb_utils.Tensor("sequence_length", np.array([[1]], np.int32))
            request.get_response_sender().send(
                pb_utils.InferenceResponse([token, length]), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )
"""
BODY = {"input_ids": [1, 2, 3], "input_lengths": 3, "request_output_len": 1, "streaming": True}
MODEL_URL = "/v2/models/tensorrt_llm"


@pytest.fixture(scope="module")
def engine_dir(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("staged") / "engine", source)


@pytest.fixture(scope="module")
def loaded(engine_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    directory = tmp_path_factory.mktemp("double")
    return load_double(serving_of(engine_dir, directory, write_config(directory / "config.pbtxt")))


@pytest.fixture
def double(loaded: Backend) -> Iterator[str]:
    """The URL of the double."""
    with served(loaded.without_requests()) as client:
        yield url_of(client)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Triton with the same config.pbtxt, but for the backend."""
    directory = tmp_path_factory.mktemp("real")
    model = directory / "repository" / "tensorrt_llm"
    write_config(model / "config.pbtxt")
    text = (model / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(text.replace('backend: "tensorrtllm"', 'backend: "python"'))
    (model / "1").mkdir()
    (model / "1" / "model.py").write_text(PYTHON_MODEL)
    http_port, metrics_port = free_ports()
    settings = TritonSettings(
        model_repository=model.parent,
        model="tensorrt_llm",
        http_port=http_port,
        metrics_port=metrics_port,
        runtime_dir=directory / "run",
    )
    command, environment = triton_command(settings)
    with (directory / "triton.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{http_port}{MODEL_URL}"
    try:
        wait_until_ready(url, process, directory / "triton.log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def url_of(client: Client) -> str:
    return f"http://127.0.0.1:{client.http_port}{MODEL_URL}"


def free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(log.read_text()[-2000:])


def post(url: str, body: str) -> tuple[int, str]:
    """Status, and the message of an error that comes before the first response."""
    response = httpx.post(f"{url}/generate_stream", content=body, timeout=30)
    if response.headers["Content-Type"] != "application/json":
        return response.status_code, ""
    message = str(response.json()["error"])
    # Of several inputs that do not fit together, Triton names any; its JSON parser describes errors in its own words.
    message = re.sub(r"input '\w+' batch size", "input ... batch size", message)
    return response.status_code, re.sub(r"(request JSON buffer: ).*", r"\1...", message)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in BODY.items() if key != name}


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        {**BODY, "id": "a request"},
        {**BODY, "id": 5},
        # A key that is no input: a parameter of the request, if it is a scalar.
        {**BODY, "beam_width": 2},
        {**BODY, "len_penalty": 1.5},
        {**BODY, "stop_words_list": [1, 2]},
        {**BODY, "stop_words_list": None},
        {**BODY, "stop_words_list": {"a": 1}},
        {**BODY, "parameters": {"temperature": 0.5}},
        {**BODY, "parameters": {"temperature": "warm"}},
        # Types.
        {**BODY, "runtime_top_k": "1"},
        {**BODY, "runtime_top_k": 1.0},
        {**BODY, "runtime_top_k": True},
        {**BODY, "temperature": 1},
        {**BODY, "temperature": "1"},
        {**BODY, "temperature": None},
        {**BODY, "return_log_probs": 1},
        {**BODY, "return_log_probs": "true"},
        {**BODY, "guided_decoding_guide": 3},
        {**BODY, "seed": -1},
        {**BODY, "seed": 2**64 - 1},
        {**BODY, "seed": 2**64},
        # Shapes.
        {**BODY, "temperature": [0.5]},
        {**BODY, "temperature": [0.5, 0.6]},
        {**BODY, "temperature": []},
        {**BODY, "seed": []},
        {**BODY, "input_ids": 7},
        {**BODY, "input_ids": [[1, 2], [3]]},
        {**BODY, "input_ids": ["a"]},
        {**BODY, "embedding_bias": [0, "1"]},
        # Required inputs: Triton only counts them.
        without("input_lengths"),
        {"request_output_len": 1},
        {},
        [1],
        "no object",
    ],
    ids=json.dumps,
)
def test_refuses_what_a_real_triton_refuses(double: str, real: str, body: Any) -> None:
    assert post(double, json.dumps(body)) == post(real, json.dumps(body))


def test_refuses_a_body_that_is_not_json(double: str, real: str) -> None:
    assert post(double, "{") == post(real, "{")


def test_gives_a_list_of_one_as_a_scalar_like_a_real_triton(double: str, real: str) -> None:
    for url in (double, real):
        response = httpx.post(f"{url}/generate_stream", json=BODY)
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        (event,) = response.text.strip().split("\n\n")
        assert json.loads(event.removeprefix("data: ")).keys() >= {"model_name", "model_version", "output_ids"}
        assert isinstance(json.loads(event.removeprefix("data: "))["output_ids"], int)


def real_tritonserver(tmp_path: Path) -> list[str]:
    settings = TritonSettings(
        model_repository=tmp_path, model="none", http_port=1, metrics_port=2, runtime_dir=tmp_path / "run"
    )
    return triton_command(settings)[0][:1]


def test_its_options_are_those_of_a_real_triton(tmp_path: Path) -> None:
    usage = subprocess.run([*real_tritonserver(tmp_path), "--help"], capture_output=True, text=True, check=False)
    kinds = {
        "boolean": tritonserver.BOOLEANS,
        "integer": tritonserver.INTEGERS,
        "string": tritonserver.STRINGS,
        "": tritonserver.FLAGS,
    }
    for kind, names in kinds.items():
        for name in names:
            assert re.search(rf"^ +--{name}( <.*{kind}.*)?$", usage.stdout + usage.stderr, re.MULTILINE), name


def test_the_smoke_tests_options_are_taken() -> None:
    command = serve_command(Toolchain(), Path("/repository"), 1, 8000, 8002)
    options = tritonserver.parse_options(command[1:])
    assert options.keys() == {flag.removeprefix("--").partition("=")[0] for flag in flags_of(command)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--load-models=tensorrt_llm"], "unrecognized option '--load-models'"),
        (["--metrics=8002"], "unrecognized option '--metrics'"),
        (["--http-port=abc"], "Invalid option value. Got abc"),
        (["--allow-grpc=maybe"], "Invalid option value. Got maybe"),
        (["--load-model=tensorrt_llm"], "requires setting '--model-control-mode=explicit'"),
        ([], "--model-repository must be specified"),
    ],
)
def test_ends_with_status_1_for_a_command_line_that_a_real_triton_refuses(
    host: GpuHost, arguments: list[str], message: str
) -> None:
    with pytest.raises(tritonserver.BadOption, match=re.escape(message)):
        tritonserver.parse_options(arguments)


@pytest.mark.parametrize("arguments", [["--frobnicate"], ["--model-repository=/nowhere"]])
def test_ends_with_status_1_like_a_real_triton(host: GpuHost, tmp_path: Path, arguments: list[str]) -> None:
    for program in (["tritonserver"], real_tritonserver(tmp_path)):
        ended = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
        assert ended.returncode == 1, ended.stdout


class TestLoading:
    """What an engine and its config must have; the program ends with status 1 for a LoadError."""

    @pytest.fixture
    def broken(self, source: Checkpoint, tmp_path: Path) -> Path:
        return write_engine(tmp_path / "engine", source)

    def message(self, engine_dir: Path, tmp_path: Path, without: str = "") -> str:
        config = write_config(tmp_path / "config.pbtxt", without=without)
        with pytest.raises(LoadError) as refused:
            load_double(serving_of(engine_dir, tmp_path / "smoke", config))
        return str(refused.value)

    @pytest.mark.parametrize("name", ["config.json", "rank0.engine", "xgrammar_tokenizer_info.json"])
    def test_a_missing_file(self, broken: Path, tmp_path: Path, name: str) -> None:
        (broken / name).unlink()
        assert name in self.message(broken, tmp_path)

    def test_a_missing_engine(self, tmp_path: Path) -> None:
        assert self.message(tmp_path / "nowhere", tmp_path).startswith("Internal: ")

    @pytest.mark.parametrize("name", ["gpt_model_type", "guided_decoding_backend"])
    def test_a_missing_parameter(self, broken: Path, tmp_path: Path, name: str) -> None:
        assert self.message(broken, tmp_path, without=name).startswith("Internal: ")

    def test_a_vocabulary_without_end_tokens(self, broken: Path, tmp_path: Path) -> None:
        info = broken / "xgrammar_tokenizer_info.json"
        vocabulary = json.loads(info.read_text())
        del vocabulary["stop_token_ids"]
        info.write_text(json.dumps(vocabulary))
        assert "stop_token_ids" in self.message(broken, tmp_path)

    def test_a_program_that_cannot_load_ends_with_status_1(self, host: GpuHost, broken: Path, tmp_path: Path) -> None:
        serving = serving_of(broken, tmp_path / "smoke", write_config(tmp_path / "config.pbtxt"))
        repository = write_repository(serving)
        (broken / "rank0.engine").unlink()
        command = serve_command(Toolchain(), repository, 1, *free_ports())
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 1
        assert "Error opening engine file" in ended.stdout


def events(url: str, **inputs: Any) -> list[dict[str, Any]]:
    """The events of a request, errors among them."""
    body = {**BODY, "request_output_len": 8, **inputs}
    response = httpx.post(f"{url}/generate_stream", json={k: v for k, v in body.items() if v is not None}, timeout=30)
    lines = response.text.strip().split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def error(url: str, **inputs: Any) -> str:
    (event,) = events(url, **inputs)
    return str(event["error"])


def without_output(loaded: Backend, name: str) -> Backend:
    """The same engine, under a config that does not declare an output."""
    config = ModelConfig()
    config.CopyFrom(loaded.config)
    (output,) = (output for output in config.output if output.name == name)
    config.output.remove(output)
    return dataclasses.replace(loaded.without_requests(), config=config)


class TestBackend:
    """What TensorRT-LLM's backend and executor refuse, emit and fail on."""

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"input_ids": None}, "input_ids or encoder_input_features is not present in the request."),
            ({"request_output_len": None}, "request_output_len is not present in the request"),
            ({"request_output_len": 0}, "maxNewTokens > 0"),
            ({"input_ids": []}, "!inputTokenIds.empty()"),
            ({"end_id": 32000}, "EndId is not within acceptable range"),
            ({"runtime_top_p": 1.5}, "topP <= 1"),
            ({"temperature": -1}, "temperature >= 0"),
            ({"repetition_penalty": 0}, "repetitionPenalty > 0"),
            ({"input_ids": [1] * 512}, "Prompt length (512) exceeds maximum input length (511)."),
            ({"stop": True}, "Trying to stop a request but request ID is not provided"),
        ],
    )
    def test_refuses_a_request(self, double: str, inputs: dict[str, Any], message: str) -> None:
        assert message in error(double, **inputs)

    def test_an_embedding_bias_of_another_size_fails_the_step(self, double: str) -> None:
        assert "Encountered an error in forwardAsync function: " in error(double, embedding_bias=[0.0] * 31999)

    @pytest.mark.parametrize("name", PERF_METRICS)
    def test_every_performance_metric_must_be_declared(self, loaded: Backend, name: str) -> None:
        with served(without_output(loaded, name)) as client:
            assert "error" not in str(events(url_of(client)))
            message = error(url_of(client), return_perf_metrics=True)
        assert f"unexpected inference output '{name}' for model 'tensorrt_llm'" in message

    @pytest.mark.parametrize("name", ["output_ids", "sequence_length"])
    def test_two_outputs_are_needed_always(self, loaded: Backend, name: str) -> None:
        with served(without_output(loaded, name)) as client:
            assert f"{name} tensor must be present in list of output tensors" in error(url_of(client))

    def test_log_probabilities_are_of_all_tokens_so_far(self, double: str) -> None:
        lengths = [
            len(event["output_log_probs"]) if isinstance(event["output_log_probs"], list) else 1
            for event in events(double, return_log_probs=True)
        ]
        assert lengths == list(range(1, 9))

    def test_a_guide_without_an_end_token_fails_all_requests_in_the_step(self, loaded: Backend) -> None:
        """With end_id -1 the answer goes on after the grammar has ended."""
        guide = {"guided_decoding_guide_type": "ebnf_grammar", "guided_decoding_guide": 'root ::= "yes"'}
        with served(loaded.without_requests()) as client:
            body = {**BODY, "request_output_len": 500}
            with httpx.stream("POST", f"{url_of(client)}/generate_stream", json=body, timeout=30) as unrelated:
                lines = unrelated.iter_lines()
                next(lines)
                message = error(url_of(client), **guide, end_id=-1, streaming=False)
                assert "GrammarMatcher has terminated after accepting the stop token" in message
                *_, last = (line for line in lines if line)
        assert "GrammarMatcher has terminated after accepting the stop token" in json.loads(last[5:])["error"]

    def test_a_guide_that_does_not_parse_fails_the_step(self, double: str) -> None:
        guide = {"guided_decoding_guide_type": "ebnf_grammar", "guided_decoding_guide": "root ::= ("}
        assert "Encountered an error in forwardAsync function: " in error(double, **guide)

    def test_an_unknown_type_of_guide_is_ignored(self, double: str) -> None:
        guide = {"guided_decoding_guide_type": "grammar", "guided_decoding_guide": "root ::= ("}
        assert len(events(double, **guide)) == 8
