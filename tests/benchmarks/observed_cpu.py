"""What logs, metrics and traces cost: CPU per streamed token with all of them on and with all off, in turns.

    python -m tests.benchmarks.observed_cpu ENGINE_DIR [--requests 10000]

Two frontends stand in front of the mock engine of `frontend_cpu`. One writes the log as JSON, with a line on arrival,
one at the end and the throughput, sends traces to a receiver in another process, and is scraped each second. The other
has none of it. Each answers half of the requests, 64 at a time, with 157 tokens. Prints CPU time per token and memory
of both as they go on, and the ratio of the medians.
"""

import argparse
import http.server
import multiprocessing
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from .frontend_cpu import Round, frontend, measure, mock_engine

NUM_STREAMS, NUM_TOKENS, STEP_S = 64, 157, 0.02
OBSERVED_PORT, PLAIN_PORT, RECEIVER_PORT = 18702, 18703, 18704
OBSERVED = ("--log-format", "json", "--otlp-traces-endpoint", f"http://127.0.0.1:{RECEIVER_PORT}/v1/traces")
PLAIN = ("--disable-log-requests", "--disable-log-stats", "--log-level", "error")
_SCRAPE_S = 1.0
_MIB = 2**20


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes spans, and drops them."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def receiver() -> Iterator[None]:
    """A receiver of traces in a process of its own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", RECEIVER_PORT), Receiver)
    process = multiprocessing.Process(target=server.serve_forever)
    process.start()
    server.socket.close()
    try:
        yield
    finally:
        process.terminate()


@contextmanager
def scraped(port: int) -> Iterator[None]:
    """Inside, /metrics is read as Prometheus does, only oftener."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(_SCRAPE_S):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def in_turns(observed: psutil.Process, plain: psutil.Process, num_rounds: int) -> tuple[list[Round], list[Round]]:
    """Rounds of both, and a line for each tenth of them."""
    rounds: tuple[list[Round], list[Round]] = ([], [])
    for number in range(num_rounds):
        with scraped(OBSERVED_PORT):
            rounds[0].append(measure(observed, OBSERVED_PORT, NUM_STREAMS))
        rounds[1].append(measure(plain, PLAIN_PORT, NUM_STREAMS))
        if number % max(num_rounds // 10, 1) == 0 or number == num_rounds - 1:
            print(
                f"after {(number + 1) * NUM_STREAMS} requests each: {rounds[0][-1].us_per_token:.1f} us observed, "
                f"{rounds[1][-1].us_per_token:.1f} us plain, {observed.memory_info().rss / _MIB:.0f} MiB observed, "
                f"{plain.memory_info().rss / _MIB:.0f} MiB plain",
                flush=True,
            )
    return rounds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.observed_cpu")
    parser.add_argument("engine_dir", type=Path)
    parser.add_argument("--requests", type=int, default=10000, help="of both together (default: %(default)s)")
    args = parser.parse_args()
    with (
        tempfile.TemporaryFile() as log,
        receiver(),
        mock_engine(NUM_STREAMS, NUM_TOKENS, STEP_S),
        frontend(args.engine_dir, OBSERVED_PORT, *OBSERVED, output=log) as observed,
        frontend(args.engine_dir, PLAIN_PORT, *PLAIN) as plain,
    ):
        for process, port in ((observed, OBSERVED_PORT), (plain, PLAIN_PORT)):
            measure(process, port, NUM_STREAMS)
        time.sleep(_SCRAPE_S)
        rounds = in_turns(observed, plain, args.requests // NUM_STREAMS // 2)
        log.seek(0)
        num_lines = sum(1 for _ in log)
    with_it, without = (median(each.us_per_token for each in kind) for kind in rounds)
    print(
        f"CPU per token: {with_it:.1f} us with logs, metrics and traces ({num_lines} lines), {without:.1f} us without; "
        f"medians of {len(rounds[0])} rounds of {NUM_STREAMS} streams; ratio {with_it / without:.3f}"
    )


if __name__ == "__main__":
    main()
