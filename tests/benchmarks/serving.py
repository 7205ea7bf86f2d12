"""Tokens per second through HTTP beside the same engine called directly, and the frontend's CPU time per token.

`make bench`, or `python -m tests.benchmarks.serving`, with an engine published in model_repository. Direct: GenAI's
pipeline in its own process, with the settings of the Triton model and all requests added at once. HTTP: `python -m
frontend.local` with the product's configuration, and a client in its own process. The two alternate, so that each ratio
compares rounds close in time. Every request has its own prompt, so that no prefix is cached; answers are greedy and of
fixed length.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from frontend.engine_dir import read_engine_dir
from frontend.text.chat_template import ChatTemplate
from frontend.text.messages import Message
from frontend.text.tokenizer import Tokenizer

from .direct_pipeline import open_direct_pipeline

MODEL_DIR = Path("model_repository/openvino")
PORT, TRITON_PORT, METRICS_PORT = 18800, 18801, 18802
ROUNDS = {1: 9, 8: 7, 32: 3}
"""Rounds by number of streams. A round with few streams is short and noisy, so there are more of them."""
CPU_ROUNDS = 3
CPU_STREAMS = 64
CPU_TOKENS = 157
"""Per answer, as in the log of the vLLM server that this one replaces. A request costs as much as 30 tokens."""
WORDS = ("house", "river", "stone", "green", "letter", "music", "seven", "bread", "window", "garden", "paper", "bridge")


def prompts(count: int, seed: int) -> list[str]:
    """Prompts that differ from their first word on."""
    rng = random.Random(seed)
    return [f"{seed} {number} " + " ".join(rng.choices(WORDS, k=24)) for number in range(count)]


def direct_engine(pipe: "Connection[Any, Any]") -> None:
    """Child process. Receives (prompts, tokens per answer) and sends the seconds that the pipeline took."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    pipeline, _ = open_direct_pipeline(MODEL_DIR)
    encode = chat_encoder(MODEL_DIR / "1" / "engine")
    pipe.send("ready")
    while job := pipe.recv():
        texts, num_tokens = job
        generation = genai.GenerationConfig()
        generation.apply_chat_template, generation.ignore_eos, generation.max_new_tokens = False, True, num_tokens
        token_ids = [np.array([encode(text)], np.int64) for text in texts]
        begin = time.perf_counter()
        handles = [pipeline.add_request(i, ov.Tensor(ids), generation) for i, ids in enumerate(token_ids)]
        while pipeline.has_non_finished_requests():
            pipeline.step()
            for handle in handles:
                while handle.can_read():
                    handle.read()
        pipe.send(time.perf_counter() - begin)


def chat_encoder(engine_dir: Path) -> Callable[[str], Sequence[int]]:
    """From a message to prompt token ids, by the frontend's code, so that both sides generate from the same prompt."""
    files = read_engine_dir(engine_dir)
    template, tokenizer = ChatTemplate(files.chat_template, files.special_tokens), Tokenizer(files.tokenizer_json)
    return lambda text: tokenizer.encode(template.render([Message("user", text)]))


def http_client(pipe: "Connection[Any, Any]") -> None:
    """Child process. Receives (model, prompts, tokens per answer) and sends the seconds that all streams took.

    SCHED_BATCH: a client that wakes up must not preempt the server, as it would not from another machine.
    """
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    while job := pipe.recv():
        model, texts, num_tokens = job
        pipe.send(asyncio.run(_all_streams(model, texts, num_tokens)))


async def _all_streams(model: str, texts: list[str], num_tokens: int) -> float:
    begin = time.perf_counter()
    counts = await asyncio.gather(*[_stream(model, text, num_tokens) for text in texts])
    took_s = time.perf_counter() - begin
    if set(counts) != {num_tokens}:
        raise SystemExit(f"asked for {num_tokens} tokens per stream and got {sorted(set(counts))}")
    return took_s


async def _stream(model: str, text: str, num_tokens: int) -> int:
    """The number of tokens of one answer. Uses bare sockets, because the client shares the cores with the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(streamed_request(model, text, num_tokens))
    answer = await reader.read(-1)
    writer.close()
    return int(answer.rsplit(b'"completion_tokens":', 1)[1].split(b"}", 1)[0])


def streamed_request(model: str, text: str, num_tokens: int) -> bytes:
    """A whole HTTP request for a greedy answer of so many tokens, streamed, with its usage at the end."""
    body = json.dumps(
        {
            "model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "ignore_eos": True,
            "max_tokens": num_tokens, "stream": True, "stream_options": {"include_usage": True},
        }
    )  # fmt: skip
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Child:
    """A child process that receives jobs and sends results through a pipe."""

    def __init__(self, target: "Callable[[Connection[Any, Any]], None]") -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        multiprocessing.Process(target=target, args=(theirs,), daemon=True).start()

    def receive(self) -> object:
        return self._pipe.recv()

    def run(self, *job: object) -> float:
        self._pipe.send(job)
        return float(self._pipe.recv())


def measure(compared: Mapping[int, int], num_tokens: int) -> None:
    """Print one line per number of streams, then one with the frontend's CPU time."""
    ports = {"--port": PORT, "--triton-port": TRITON_PORT, "--metrics-port": METRICS_PORT}
    command = [sys.executable, "-m", "frontend.local", "--runtime-dir", ".cache/bench"]
    command += [str(part) for option in ports.items() for part in option]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        direct, client = Child(direct_engine), Child(http_client)
        direct.receive()
        model = _wait_for_model(server)
        _print_conditions(model, num_tokens)
        client.run(model, prompts(4, 1), 8)
        direct.run(prompts(4, 1), 8)
        for streams, rounds in compared.items():
            _compare(streams, rounds, num_tokens, model, direct, client)
        _frontend_cpu(server, model, client)
    finally:
        server.terminate()
        server.wait()


def _compare(streams: int, rounds: int, num_tokens: int, model: str, direct: Child, client: Child) -> None:
    direct_rates, http_rates = [], []
    for number in range(rounds):
        texts = prompts(streams, 1000 * streams + number)
        for side in ("direct", "http") if number % 2 else ("http", "direct"):
            if side == "direct":
                direct_rates.append(streams * num_tokens / direct.run(texts, num_tokens))
            else:
                http_rates.append(streams * num_tokens / client.run(model, texts, num_tokens))
    ratios = [http / straight for http, straight in zip(http_rates, direct_rates, strict=True)]
    print(
        f"{streams:3} streams: {statistics.median(http_rates):6.1f} tokens/s through HTTP, "
        f"{statistics.median(direct_rates):6.1f} direct, ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds)",
        flush=True,
    )


def _frontend_cpu(server: "subprocess.Popen[bytes]", model: str, client: Child) -> None:
    (frontend,) = [child for child in psutil.Process(server.pid).children() if "frontend" in child.cmdline()]
    costs = []
    for number in range(CPU_ROUNDS):
        before = frontend.cpu_times()
        client.run(model, prompts(CPU_STREAMS, 90_000 + number), CPU_TOKENS)
        after = frontend.cpu_times()
        spent_s = after.user + after.system - before.user - before.system
        costs.append(1e6 * spent_s / (CPU_STREAMS * CPU_TOKENS))
    print(
        f"{CPU_STREAMS:3} streams of {CPU_TOKENS} tokens: {statistics.median(costs):.0f} us of the frontend's CPU time "
        f"per streamed token, requests included ({min(costs):.0f} to {max(costs):.0f} in {CPU_ROUNDS} rounds)"
    )


def _wait_for_model(server: "subprocess.Popen[bytes]") -> str:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v1/models") as response:
                return str(json.load(response)["data"][0]["id"])
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start; run: python -m frontend.local")


def _print_conditions(model: str, num_tokens: int) -> None:
    cores, load = psutil.cpu_count(), psutil.getloadavg()[0]
    print(f"{model}\n{num_tokens} tokens per stream, medians of all rounds, {cores} cores, load {load:.1f} before")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.serving")
    parser.add_argument("--only-cpu", action="store_true", help="measure only the frontend's CPU time")
    parser.add_argument("--tokens", type=int, default=64, help="number of tokens of each answer (default: %(default)s)")
    arguments = parser.parse_args()
    measure({} if arguments.only_cpu else ROUNDS, arguments.tokens)


if __name__ == "__main__":
    main()
