"""Start Triton on an engine before it is published, and have it generate.

The test fails if the engine does not load or answer, for tokens out of range, for log probabilities that are not
finite, and if a greedy answer changes by more than rounding explains.
"""

import json
import math
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from build_engine.errors import EngineError, HostError
from build_engine.model_config import ServingConfig
from build_engine.signals import uninterrupted

from .commands import Toolchain, serve_command
from .subprocess_log import end_group, failed
from .tokenizer_info import XGRAMMAR_TOKENIZER_INFO

_MODEL = "tensorrt_llm"
_PROMPT = "[INST] What is a house? [/INST]"
_NUM_TOKENS = 64
_START_TIMEOUT_S = 1800.0
"""Reading an engine of 25 GB from a slow disk takes minutes."""
_ROUNDING = 0.2
"""Largest difference between two log probabilities of the same context that rounding explains.

The second prompt comes from the KV cache. Other kernels then add float16 numbers in another order, so two tokens that
are nearly as likely may change places. The values of a damaged engine differ by more."""
_ANSWER_TIMEOUT_S = 120.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class GreedyAnswer:
    """The answer to one request: `log_probs` has one value per token, `seconds` is from the first token to the last."""

    token_ids: list[int]
    log_probs: list[float]
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return (len(self.token_ids) - 1) / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeTest:
    """What to start: an engine directory with tokenizer info, and the config to serve it with.

    The log goes to `directory`. Triton inherits the descriptors `keep_open`.
    """

    engine_dir: Path
    config: ServingConfig
    tokenizer_json: Path
    vocab_size: int
    tp_size: int
    directory: Path
    keep_open: tuple[int, ...] = ()


def smoke(test: SmokeTest, tools: Toolchain) -> tuple[GreedyAnswer, int]:
    """The second of two greedy answers, and how many tokens they share from the start.

    Raises ToolFailed when Triton ends, EngineError for an answer that is not plausible.
    """
    repository = _write_repository(test)
    prompt_token_ids = Tokenizer.from_file(str(test.tokenizer_json)).encode(_PROMPT).ids
    with _serving(test, tools, repository) as url:
        first, second = (_generate(url, prompt_token_ids) for _ in range(2))
    for answer in (first, second):
        check_answer(answer, test.vocab_size)
    # The second answer shows the speed: the kernels are loaded, the prompt is in the cache.
    return second, tokens_alike(first, second)


def tokens_alike(first: GreedyAnswer, second: GreedyAnswer) -> int:
    """How many tokens two greedy answers share. Raises EngineError if rounding does not explain where they differ.

    Both answers take the token with the greatest log probability. If rounding moves each log probability by at most
    _ROUNDING, the greatest moves by at most that, even where another token is then the greatest.
    """
    pairs = zip(first.token_ids, second.token_ids, first.log_probs, second.log_probs, strict=True)
    for position, (ours, theirs, log_prob, other) in enumerate(pairs):
        if abs(log_prob - other) > _ROUNDING:
            raise EngineError(
                f"the engine answers a greedy request in two ways: token {position} is {ours} and {theirs},"
                f" with log probabilities {log_prob} and {other}"
            )
        if ours != theirs:
            return position
    return len(first.token_ids)


def check_answer(answer: GreedyAnswer, vocab_size: int) -> None:
    """Raises EngineError for a wrong number of tokens, a token outside the vocabulary, or a log probability that is not
    finite or is above zero."""
    if len(answer.token_ids) != _NUM_TOKENS:
        raise EngineError(f"the engine generated {len(answer.token_ids)} tokens; accepted: the {_NUM_TOKENS} asked for")
    for token_id in answer.token_ids:
        if not 0 <= token_id < vocab_size:
            raise EngineError(f"the engine generated token {token_id}; accepted: 0 to {vocab_size - 1}")
    if len(answer.log_probs) != _NUM_TOKENS:
        raise EngineError(f"the engine gave {len(answer.log_probs)} log probabilities for {_NUM_TOKENS} tokens")
    for log_prob in answer.log_probs:
        if not (math.isfinite(log_prob) and log_prob <= 1e-3):
            raise EngineError(f"the engine gave a log probability of {log_prob}; accepted: finite, at most zero")


def _write_repository(test: SmokeTest) -> Path:
    """A model repository with the same config but for the engine's path."""
    engine_dir = test.engine_dir.absolute()
    paths = {
        "gpt_model_path": str(engine_dir),
        "tokenizer_dir": str(engine_dir),
        "xgrammar_tokenizer_info_path": str(engine_dir / XGRAMMAR_TOKENIZER_INFO),
    }
    model = test.directory / "repository" / _MODEL
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "config.pbtxt").write_text(test.config.text_with(paths))
    return model.parent


@contextmanager
def _serving(test: SmokeTest, tools: Toolchain, repository: Path) -> Iterator[str]:
    http_port, metrics_port = _free_ports()
    command = serve_command(tools, repository, test.tp_size, http_port, metrics_port)
    log = test.directory / "triton.log"
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=test.keep_open,
            )
        except OSError as error:
            raise HostError(f"smoke: {command[0]} cannot be started ({error.strerror})") from error
    try:
        url = f"http://127.0.0.1:{http_port}/v2/models/{_MODEL}"
        _await(process, url, log)
        yield url
    finally:
        with uninterrupted():
            end_group(process)


def _await(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < give_up:
        if (status := process.poll()) is not None:
            raise failed("smoke", "tritonserver", status, log)
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=_ANSWER_TIMEOUT_S):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(_POLL_S)
    raise EngineError(f"Triton did not load the engine within {_START_TIMEOUT_S:.0f} s; its log is {log}")


def _generate(url: str, prompt_token_ids: list[int]) -> GreedyAnswer:
    body = {
        "input_ids": prompt_token_ids,
        "input_lengths": len(prompt_token_ids),
        "request_output_len": _NUM_TOKENS,
        # -1: go on after an end token.
        "end_id": -1,
        "pad_id": 0,
        "runtime_top_k": 1,
        "streaming": True,
        "return_log_probs": True,
    }
    request = urllib.request.Request(
        f"{url}/generate_stream", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_TIMEOUT_S) as response:
            return _read_answer(response)
    except (OSError, ValueError) as error:
        raise EngineError(f"the engine does not answer ({error})") from error


def _read_answer(events: Iterator[bytes]) -> GreedyAnswer:
    """Each event has the new token ids, and the log probabilities of all tokens so far. A list of one is a scalar."""
    token_ids: list[int] = []
    log_probs: list[float] = []
    first = last = time.monotonic()
    for line in events:
        if not line.startswith(b"data:"):
            continue
        event = json.loads(line[5:])
        if "error" in event:
            raise EngineError(f"the engine answered: {event['error']}")
        last = time.monotonic()
        first = first if token_ids else last
        token_ids += _list(event.get("output_ids", []))
        log_probs = _list(event.get("output_log_probs", [])) or log_probs
    return GreedyAnswer(token_ids, log_probs, last - first)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _free_ports() -> tuple[int, int]:
    with socket.socket() as http, socket.socket() as metrics:
        for probe in (http, metrics):
            probe.bind(("127.0.0.1", 0))
        return http.getsockname()[1], metrics.getsockname()[1]
