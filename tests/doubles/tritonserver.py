#!/usr/bin/env python3
"""Stands for tritonserver with the tensorrtllm backend: its options, its exit status, HTTP and metrics.

triton_core.py has what Triton does with a config and a request, tensorrtllm_backend.py what TensorRT-LLM does.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.doubles import tensorrtllm_backend
from tests.doubles.tensorrtllm_backend import Backend, BackendError, load
from tests.doubles.triton_core import INTERNAL, LoadError, RequestError, read_config, read_request

BOOLEANS = (
    "log-info", "log-warning", "log-error", "exit-on-error", "strict-readiness", "allow-http", "allow-grpc",
    "allow-metrics", "allow-gpu-metrics", "allow-cpu-metrics", "allow-sagemaker", "allow-vertex-ai",
)  # fmt: skip
INTEGERS = ("exit-timeout-secs", "log-verbose", "http-port", "http-thread-count", "grpc-port", "metrics-port")
STRINGS = (
    "id", "model-repository", "model-control-mode", "load-model", "http-address", "http-restricted-api", "grpc-address",
    "grpc-restricted-protocol", "metrics-address", "metrics-config", "backend-directory",
)  # fmt: skip
FLAGS = ("disable-auto-complete-config",)
"""Options of tritonserver by the kind of their value; a real one has more of each kind."""


class BadOption(Exception):
    """Triton prints its usage and ends with status 1."""


def parse_options(arguments: Sequence[str]) -> dict[str, str]:
    """Values by option. Raises BadOption as the real program refuses its command line."""
    options: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in (*BOOLEANS, *INTEGERS, *STRINGS, *FLAGS):
            raise BadOption(f"tritonserver: unrecognized option '{argument.partition('=')[0]}'")
        if name in INTEGERS and not value.isdecimal():
            raise BadOption(f'Bad option: "--{name}".\nInvalid option value. Got {value}')
        if name in BOOLEANS and value.lower() not in ("true", "false", "1", "0"):
            raise BadOption(f'Bad option: "--{name}".\nInvalid option value. Got {value}')
        options[name] = value
    if "load-model" in options and options.get("model-control-mode") != "explicit":
        raise BadOption("Error: Use of '--load-model' requires setting '--model-control-mode=explicit' as well.")
    if "model-repository" not in options:
        raise BadOption("Error: the --model-repository must be specified")
    return options


class Handler(BaseHTTPRequestHandler):
    """The generate extension, whose responses come in chunks."""

    protocol_version = "HTTP/1.1"
    backend: Backend

    def do_GET(self) -> None:
        self._reply(200 if self.path == f"/v2/models/{self.backend.config.name}/ready" else 404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != f"/v2/models/{self.backend.config.name}/generate_stream":
            self._reply(404, b'{"error":"Not Found"}')
            return
        try:
            request = read_request(body, self.backend.config)
        except RequestError as error:
            self._reply(error.status, json.dumps({"error": error.message}).encode())
            return
        named = {"id": request.request_id} if request.request_id else {}
        responses = self.backend.generate(request)
        try:
            self._stream(responses, {**named, "model_name": self.backend.config.name, "model_version": "1"})
        except ConnectionError:
            self.close_connection = True
        finally:
            responses.close()  # type: ignore[attr-defined]  # a generator: this cancels the request

    def _stream(self, responses: Iterator[dict[str, Any]], named: Mapping[str, str]) -> None:
        """Events, of which the first decides the status."""
        begun = False
        while True:
            status = 200
            try:
                outputs = next(responses)
            except StopIteration:
                break
            except BackendError as error:
                status, event = INTERNAL, {"error": str(error)}
            else:
                event = {**named, **{name: _flat(values) for name, values in outputs.items()}}
            if not begun:
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream; charset=utf-8")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                begun = True
            self._chunk(f"data: {json.dumps(event)}\n\n".encode())
            if status != 200:
                break
            if tensorrtllm_backend.FAULT == "dies" and "output_ids" in event:
                say("Signal (11) received.")
                os._exit(139)
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class MetricsHandler(BaseHTTPRequestHandler):
    """Triton's metrics, of which only the number of active requests is there."""

    backend: Backend

    def do_GET(self) -> None:
        labels = f'{{model="{self.backend.config.name}",request_type="active",version="1"}}'
        name = "nv_trt_llm_request_metrics" if tensorrtllm_backend.FAULT != "no_metrics" else "nv_inference_count"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"# TYPE {name} gauge\n{name}{labels} {self.backend.num_active}\n".encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def listening(backend: Backend, http_port: int = 0, metrics_port: int = 0) -> Iterator[tuple[int, int]]:
    """Serve the backend on loopback until the end of the block. Yields the two ports, which are free ones for 0."""
    servers = [
        ThreadingHTTPServer(("127.0.0.1", port), type(handler.__name__, (handler,), {"backend": backend}))
        for port, handler in ((http_port, Handler), (metrics_port, MetricsHandler))
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield servers[0].server_port, servers[1].server_port
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _flat(values: list[Any]) -> Any:
    """A list of one is a scalar, as the generate extension has it."""
    return values[0] if len(values) == 1 else values


def main() -> int:
    try:
        options = parse_options(sys.argv[1:])
    except BadOption as error:
        say(str(error))
        return 1
    if tensorrtllm_backend.FAULT == "version_mismatch":
        say("[TensorRT-LLM][ERROR] Serialization assertion stdVersionRead == serializationVersion failed.")
        return 1
    try:
        backend = load(read_config(Path(options["model-repository"]), options.get("load-model", "")))
    except LoadError as error:
        say(f"error: creating server: {error}")
        return 1
    if tensorrtllm_backend.FAULT == "server_hangs" or os.environ.get("OMPI_COMM_WORLD_RANK", "0") != "0":
        time.sleep(600)
    with listening(backend, int(options.get("http-port", 8000)), int(options.get("metrics-port", 8002))):
        threading.Event().wait()
    return 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
