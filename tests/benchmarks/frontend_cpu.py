"""CPU time of the frontend process per streamed token. Engine and client are bare sockets in other processes.

    python -m tests.benchmarks.frontend_cpu ENGINE_DIR

ENGINE_DIR is a published engine directory (any tokenizer). Prints the figure with its conditions. The engine sends each
stream one token per step, to all streams at the same moment, as in-flight batching does.
"""

import argparse
import asyncio
import json
import multiprocessing
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

ENGINE_PORT, FRONTEND_PORT = 18701, 18700
MODEL = "m"
INPUTS = (
    "input_ids input_lengths request_output_len end_id pad_id streaming temperature runtime_top_p runtime_top_k seed"
)
EVENT = (
    b'data: {"model_name":"openvino","model_version":"1","output_ids":6004,"sequence_length":1,"cum_log_probs":0.0,'
    b'"output_log_probs":0.0}\n\n'
)


async def engine(num_streams: int, num_tokens: int, step_s: float) -> None:
    """Answers the frontend's requests at start. Once all streams are open, sends their tokens in lockstep."""
    writers: list[asyncio.StreamWriter] = []
    all_here = asyncio.Event()
    config = {
        "name": "openvino",
        "max_batch_size": num_streams,
        "input": [{"name": name} for name in INPUTS.split()],
        "parameters": {"max_seq_len": {"string_value": "8192"}},
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            writers.append(writer)
            if len(writers) == num_streams:
                all_here.set()
            return
        body = json.dumps(config).encode() if b"/config" in head else b""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", ENGINE_PORT):
        while True:
            await all_here.wait()
            all_here.clear()
            batch, chunk = list(writers), b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
            writers.clear()
            for _ in range(num_tokens):
                for writer in batch:
                    writer.write(chunk)
                await asyncio.sleep(step_s)
            for writer in batch:
                writer.write(b"0\r\n\r\n")
                writer.close()


async def client(port: int) -> tuple[int, float]:
    """Read one stream to its end. Returns the number of deltas and the seconds that it took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    begin, received = time.perf_counter(), await reader.read(-1)
    writer.close()
    return received.count(b'{"content":'), time.perf_counter() - begin


@dataclass(frozen=True)
class Round:
    """One answer to each of the streams: the frontend's CPU time, and what it was spent on."""

    cpu_s: float
    num_tokens: int
    took_s: float

    @property
    def us_per_token(self) -> float:
        """Microseconds of CPU time per streamed token, the requests themselves included."""
        return 1e6 * self.cpu_s / self.num_tokens


@contextmanager
def mock_engine(num_streams: int, num_tokens: int, step_s: float) -> Iterator[None]:
    """The engine in a process of its own."""
    process = multiprocessing.Process(target=_run_engine, args=(num_streams, num_tokens, step_s))
    process.start()
    try:
        yield
    finally:
        process.terminate()


@contextmanager
def frontend(
    engine_dir: Path, port: int, *options: str, output: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[psutil.Process]:
    """The frontend in front of the mock engine, answering; `output` gets its log."""
    command = [sys.executable, "-m", "frontend", "--engine-dir", str(engine_dir), "--port", str(port)]
    command += ["--triton-url", f"http://127.0.0.1:{ENGINE_PORT}", "--served-model-name", MODEL, *options]
    process = subprocess.Popen(command, stderr=output)
    try:
        _wait_until_healthy(port)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def measure(process: psutil.Process, port: int, num_streams: int) -> Round:
    """Let all streams be answered at the same time. The CPU time of workers counts too."""
    before = cpu_s(process)
    results = asyncio.run(_round(port, num_streams))
    return Round(
        cpu_s=cpu_s(process) - before,
        num_tokens=sum(count for count, _ in results),
        took_s=max(seconds for _, seconds in results),
    )


def cpu_s(process: psutil.Process) -> float:
    """Of the process and of its workers, if it has any."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def main() -> None:
    """Run one round to warm up and one to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine_dir", type=Path)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--step-ms", type=float, default=25.0)
    args = parser.parse_args()
    with (
        mock_engine(args.streams, args.tokens, args.step_ms / 1000),
        frontend(args.engine_dir, FRONTEND_PORT) as process,
    ):
        measure(process, FRONTEND_PORT, args.streams)
        done = measure(process, FRONTEND_PORT, args.streams)
    print(
        f"{done.us_per_token:.1f} us CPU per token, requests included: {args.streams} streams, "
        f"{done.num_tokens} tokens in {done.took_s:.1f} s ({done.num_tokens / done.took_s:.0f} tokens/s), "
        f"one step per {args.step_ms:g} ms"
    )


def _run_engine(num_streams: int, num_tokens: int, step_s: float) -> None:
    asyncio.run(engine(num_streams, num_tokens, step_s))


async def _round(port: int, num_streams: int) -> list[tuple[int, float]]:
    return await asyncio.gather(*[client(port) for _ in range(num_streams)])


def _wait_until_healthy(port: int, timeout_s: float = 60.0) -> None:
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the frontend did not start")


if __name__ == "__main__":
    main()
