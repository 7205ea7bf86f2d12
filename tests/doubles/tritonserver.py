#!/usr/bin/env python3
"""Stands for tritonserver with the tensorrtllm backend: loads what a config.pbtxt names, and streams token ids.

The ids are computed from the prompt, the same every time unless DOUBLE_FAULT says otherwise.
"""

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

FAULT = os.environ.get("DOUBLE_FAULT")
MODEL = "/v2/models/tensorrt_llm"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-repository", type=Path, required=True)
    parser.add_argument("--model-control-mode", choices=["none", "poll", "explicit"])
    for name in ("load-model", "http-address", "metrics-address", "allow-grpc"):
        parser.add_argument(f"--{name}")
    for name in ("http-port", "metrics-port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--disable-auto-complete-config", action="store_true")
    return parser.parse_args()


def load(repository: Path) -> dict[str, Any]:
    """The engine's config. Raises for what the backend would refuse."""
    config = text_format.Parse((repository / "tensorrt_llm" / "config.pbtxt").read_text(), ModelConfig())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert config.backend == "tensorrtllm"
    assert parameters["gpt_model_type"] == "inflight_fused_batching"
    engine_dir = Path(parameters["gpt_model_path"])
    engine: dict[str, Any] = json.loads((engine_dir / "config.json").read_text())
    world_size = engine["pretrained_config"]["mapping"]["world_size"]
    assert world_size == int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")), "one process for each rank"
    assert (engine_dir / f"rank{os.environ.get('OMPI_COMM_WORLD_RANK', '0')}.engine").stat().st_size
    info = json.loads(Path(parameters["xgrammar_tokenizer_info_path"]).read_text())
    assert set(info) == {"encoded_vocab", "tokenizer_str", "stop_token_ids"}
    return engine


class Handler(BaseHTTPRequestHandler):
    vocab_size = 0
    requests = 0

    def do_GET(self) -> None:
        self.send_response(200 if self.path == f"{MODEL}/ready" else 404)
        self.end_headers()

    def do_POST(self) -> None:
        assert self.path == f"{MODEL}/generate_stream"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert len(request["input_ids"]) == request["input_lengths"]
        type(self).requests += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        log_probs: list[float] = []
        for position in range(request["request_output_len"]):
            token_id = (sum(request["input_ids"]) + 7 * position) % self.vocab_size
            log_probs.append(-0.5)
            if FAULT == "token_out_of_range":
                token_id = self.vocab_size
            if FAULT == "not_repeatable" and position == 10:
                token_id, log_probs[-1] = (token_id + self.requests) % self.vocab_size, -1.5 * self.requests
            if FAULT == "near_tie" and position >= 10:
                token_id, log_probs[-1] = (token_id + self.requests) % self.vocab_size, -0.5 - 0.01 * self.requests
            if FAULT == "near_tie" and position > 10:
                log_probs[-1] = -2.0 * self.requests  # another text from there on
            if FAULT == "not_finite":
                log_probs[-1] = float("nan")
            # A list of one is a scalar, as the generate extension has it.
            values = log_probs[0] if len(log_probs) == 1 else log_probs
            event = {"output_ids": token_id, "sequence_length": 1, "output_log_probs": values}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> int:
    arguments = parse_arguments()
    assert arguments.load_model == "tensorrt_llm"
    if FAULT == "version_mismatch":
        say("[TensorRT-LLM][ERROR] Serialization assertion stdVersionRead == serializationVersion failed.")
        return 1
    engine = load(arguments.model_repository)
    if FAULT == "server_hangs" or os.environ.get("OMPI_COMM_WORLD_RANK", "0") != "0":
        time.sleep(600)
    Handler.vocab_size = engine["pretrained_config"]["vocab_size"]
    ThreadingHTTPServer((arguments.http_address, arguments.http_port), Handler).serve_forever()
    return 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
