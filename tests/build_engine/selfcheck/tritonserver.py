#!/usr/bin/env python3
"""The double of tritonserver, with what the self check needs: --help, answers completed after SIGTERM, paused requests.

SERVER_FAULT is one thing that is wrong, and only in what the smoke test does not try.
"""

import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.doubles import tensorrtllm_backend, tritonserver
from tests.doubles.triton_core import Request

FAULT = os.environ.get("SERVER_FAULT")
BUSY = 16
"""Active requests from which on `other_when_busy` answers otherwise."""
MANY_CLOSED = 6
"""Cancelled requests from which on `keeps_closed` counts them as active."""
ENDING = threading.Event()
LOADED: list[tensorrtllm_backend.Backend] = []


class Metrics(tritonserver.MetricsHandler):
    """The double's metrics, and how many requests are paused."""

    def do_GET(self) -> None:  # noqa: N802
        super().do_GET()
        labels = '{model="tensorrt_llm",inflight_batcher_specific_metric="paused_requests",version="1"}'
        paused = 3 if FAULT == "pauses" else 0
        self.wfile.write(f"nv_trt_llm_inflight_batcher_metrics{labels} {paused}\n".encode())


class Backend(tensorrtllm_backend.Backend):
    """The double's backend, with the faults of this file."""

    closed = 0
    """Requests that were cancelled."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        LOADED.append(self)

    @property
    def num_active(self) -> int:
        kept = self.closed if FAULT == "keeps_closed" and self.closed >= MANY_CLOSED else 0
        return super().num_active + kept

    def generate(self, request: Request) -> Iterator[dict[str, Any]]:
        responses = super().generate(request)
        try:
            for outputs in responses:
                if FAULT == "cuts_at_sigterm" and ENDING.is_set():
                    break
                if FAULT == "other_when_busy" and super().num_active > BUSY and "output_log_probs" in outputs:
                    outputs["output_log_probs"] = [value - 1.0 for value in outputs["output_log_probs"]]
                yield outputs
        except GeneratorExit:
            self.closed += 1
            raise
        finally:
            responses.close()  # type: ignore[attr-defined]  # a generator


def finish(*_: object) -> None:
    """Triton completes its answers before it ends."""
    ENDING.set()
    while any(backend._active for backend in LOADED):
        time.sleep(0.01)
    time.sleep(0.2)  # the last event leaves the process
    os._exit(1 if FAULT == "fails_at_exit" else 0)


def main() -> int:
    if "--help" in sys.argv:
        names = (*tritonserver.BOOLEANS, *tritonserver.INTEGERS, *tritonserver.STRINGS, *tritonserver.FLAGS)
        sys.stderr.write("Usage: tritonserver [options]\n" + "".join(f"  --{name} <value>\n" for name in names))
        return 1
    if FAULT == "does_not_serve" and any(argument.endswith("tp1/model_repository") for argument in sys.argv):
        return 1
    socketserver.TCPServer.request_queue_size = 128  # connections that come at once; Python's default is 5
    tritonserver.MetricsHandler = Metrics  # type: ignore[misc]
    tensorrtllm_backend.Backend = Backend  # type: ignore[misc]
    signal.signal(signal.SIGTERM, finish)
    return tritonserver.main()


if __name__ == "__main__":
    sys.exit(main())
