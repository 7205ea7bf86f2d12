"""What logs, metrics and traces cost: CPU per streamed token with all of them on and with all off, in turns.

    python -m tests.benchmarks.observed_cpu ENGINE_DIR [--requests 10000] [--starts 12]

Two frontends stand in front of the mock engine of `frontend_cpu`. One writes the log as JSON, with a line on arrival,
one at the end and the throughput, sends traces of all requests to a receiver in another process, and is scraped as
often as docker/prometheus/prometheus.yml says. The other has none of it. Each answers half of the requests, 64 at a
time, with 157 tokens. Prints CPU time per token and memory of both as they go on.

Two processes of the same program differ by some percent, whatever they do, as they lie in memory differently. So both
are started again several times. Prints the ratio of each pair, the mean of them and its standard error. `--starts 1`
shows the memory of one process over all requests.
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
from statistics import mean, stdev

import psutil

from .frontend_cpu import cpu_s, frontend, measure, mock_engine

NUM_STREAMS, NUM_TOKENS, STEP_S = 64, 157, 0.02
OBSERVED_PORT, PLAIN_PORT, RECEIVER_PORT = 18702, 18703, 18704
OBSERVED = ("--log-format", "json", "--otlp-traces-endpoint", f"http://127.0.0.1:{RECEIVER_PORT}/v1/traces")
PLAIN = ("--disable-log-requests", "--disable-log-stats", "--log-level", "error")
_SCRAPE_S = 5.0
"""`scrape_interval` of docker/prometheus/prometheus.yml."""
_SENT_AFTER_S = 6.0
"""The exporter of traces sends every 5 s."""
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
    """Inside, /metrics is read as Prometheus does."""
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


def one_start(engine_dir: Path, num_rounds: int) -> float:
    """Rounds of both in turns. Returns the ratio of their CPU time, that between their rounds and after them included.

    Spans are sent every few seconds, often while it is the other one's turn.
    """
    with (
        tempfile.TemporaryFile() as log,
        frontend(engine_dir, OBSERVED_PORT, *OBSERVED, output=log) as observed,
        frontend(engine_dir, PLAIN_PORT, *PLAIN) as plain,
    ):
        for process, port in ((observed, OBSERVED_PORT), (plain, PLAIN_PORT)):
            measure(process, port, NUM_STREAMS)  # to warm up
        time.sleep(_SENT_AFTER_S)
        before = cpu_s(observed), cpu_s(plain)
        in_turns(observed, plain, num_rounds)
        time.sleep(_SENT_AFTER_S)
        return (cpu_s(observed) - before[0]) / (cpu_s(plain) - before[1])


def in_turns(observed: psutil.Process, plain: psutil.Process, num_rounds: int) -> None:
    """Rounds of both, and a line for each tenth of them."""
    with scraped(OBSERVED_PORT):
        for number in range(1, num_rounds + 1):
            with_it = measure(observed, OBSERVED_PORT, NUM_STREAMS)
            without = measure(plain, PLAIN_PORT, NUM_STREAMS)
            if number % max(num_rounds // 10, 1) == 0 or number == num_rounds:
                print(
                    f"after {number * NUM_STREAMS} requests each: {with_it.us_per_token:.1f} us observed, "
                    f"{without.us_per_token:.1f} us plain, {observed.memory_info().rss / _MIB:.0f} MiB observed, "
                    f"{plain.memory_info().rss / _MIB:.0f} MiB plain",
                    flush=True,
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.observed_cpu")
    parser.add_argument("engine_dir", type=Path)
    parser.add_argument("--requests", type=int, default=10000, help="of both together (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=12, help="of each frontend (default: %(default)s)")
    args = parser.parse_args()
    num_rounds = max(1, args.requests // NUM_STREAMS // 2 // args.starts)
    with receiver(), mock_engine(NUM_STREAMS, NUM_TOKENS, STEP_S):
        ratios = [one_start(args.engine_dir, num_rounds) for _ in range(args.starts)]
    print(
        f"CPU per token with logs, metrics and traces to without, of each start: {sorted(round(r, 3) for r in ratios)}"
    )
    error = stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    print(f"mean {mean(ratios):.3f}, standard error {error:.3f}; {num_rounds} rounds of {NUM_STREAMS} streams each")


if __name__ == "__main__":
    main()
