"""The CPU engine as a Triton model: the tensors of `tensorrt_llm` in and out, streamed for each request."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from batcher import Batcher, Progress
from counters import BACKEND, CANCELED, RequestCounters
from gauges import Gauges
from generation import GenerationRequest, InvalidRequest, decode_request
from guides import Guides
from settings import InvalidSettings, MissingEngine, open_pipeline, read_settings


class TritonPythonModel:
    """Loaded by Triton's Python backend, which calls the three methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load and compile the engine."""
        try:
            settings = read_settings(args)
        except (MissingEngine, InvalidSettings) as error:
            raise pb_utils.TritonModelException(str(error)) from error
        pb_utils.Logger.log_info(f"{args['model_name']} computes in {settings.precision}")
        pipeline = open_pipeline(settings)
        labels = {"model": args["model_name"], "version": args["model_version"]}
        self._limits = settings.limits
        self._guides = Guides(settings.engine_dir, pipeline.get_tokenizer())
        self._counters = RequestCounters(labels)
        self._gauges = Gauges(labels, settings.kv_room, pipeline)
        self._batcher = Batcher(pipeline, settings.kv_room, self._report)

    def execute(self, requests: list[Any]) -> None:
        """Add the requests to the batch. Each is answered through its own response sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
                decoded = decode_request(inputs, self._limits)
            except InvalidRequest as error:
                _Client(sender, self._counters).refuse(str(error))
            else:
                self._submit(decoded, sender)

    def finalize(self) -> None:
        """Triton is shutting down."""
        self._guides.close()
        self._batcher.close()

    def _report(self, num_active: int) -> None:
        """After each step."""
        if self._gauges.update(num_active):
            self._counters.flush()

    def _submit(self, request: GenerationRequest, sender: Any) -> None:
        if request.generation_config.structured_output_config is None:
            self._batcher.submit(request, _Client(sender, self._counters))
        else:
            client = _GuidedClient(sender, self._counters, self._guides.started)
            self._guides.pass_on(
                request,
                submit=lambda: self._batcher.submit(request, client),
                refuse=lambda error: client.refuse(str(error)),
            )


class _Client:
    """Sends a request's tokens through its response sender, and counts its end. Made when `execute` is done with it."""

    def __init__(self, sender: Any, counters: RequestCounters) -> None:
        self._sender = sender
        self._counters = counters
        self._since_ns = time.monotonic_ns()

    def is_cancelled(self) -> bool:
        return bool(self._sender.is_cancelled())

    def send(self, request: GenerationRequest, progress: Progress, final: bool) -> None:
        tensors = [pb_utils.Tensor(name, array) for name, array in to_outputs(request, progress).items()]
        self._sender.send(
            pb_utils.InferenceResponse(tensors), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        )
        progress.num_sent = len(progress.token_ids)
        if final:
            self._counters.ended(self._since_ns, progress.first_scheduled_time_ns)

    def fail(self, message: str, progress: Progress) -> None:
        _send_error(self._sender, message, pb_utils.TritonError.INTERNAL)
        self._counters.ended(self._since_ns, progress.first_scheduled_time_ns, BACKEND)

    def cancel(self, progress: Progress) -> None:
        _send_error(self._sender, "the request was cancelled", pb_utils.TritonError.CANCELLED)
        self._counters.ended(self._since_ns, progress.first_scheduled_time_ns, CANCELED)

    def refuse(self, message: str) -> None:
        """It has not been given to the engine."""
        _send_error(self._sender, message, pb_utils.TritonError.INVALID_ARG)
        self._counters.ended(self._since_ns, 0, BACKEND)
        self._counters.flush()


class _GuidedClient(_Client):
    """Reports the first tokens, or the end without any."""

    def __init__(self, sender: Any, counters: RequestCounters, started: Callable[[], None]) -> None:
        super().__init__(sender, counters)
        self._started: Callable[[], None] | None = started

    def send(self, request: GenerationRequest, progress: Progress, final: bool) -> None:
        self._report()
        super().send(request, progress, final)

    def fail(self, message: str, progress: Progress) -> None:
        self._report()
        super().fail(message, progress)

    def cancel(self, progress: Progress) -> None:
        self._report()
        super().cancel(progress)

    def _report(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            started()


def to_outputs(request: GenerationRequest, progress: Progress) -> dict[str, np.ndarray[Any, Any]]:
    """The new tokens, [batch 1, beams 1, ...]; log probs are of all tokens so far, as TensorRT-LLM streams them."""
    token_ids = progress.token_ids[progress.num_sent :]
    if request.echo and not request.streaming:
        token_ids = [*request.prompt_token_ids[0].tolist(), *token_ids]
    outputs = {
        "output_ids": np.array([[token_ids]], np.int32),
        "sequence_length": np.array([[len(token_ids)]], np.int32),
    }
    if request.return_log_probs:
        outputs["output_log_probs"] = np.array([[progress.log_probs]], np.float32)
        outputs["cum_log_probs"] = np.array([[sum(progress.log_probs)]], np.float32)
    if request.return_perf_metrics:
        times = {
            "arrival_time_ns": request.arrival_time_ns,
            "first_scheduled_time_ns": progress.first_scheduled_time_ns,
            "first_token_time_ns": progress.first_token_time_ns,
            "last_token_time_ns": progress.last_token_time_ns,
        }
        outputs |= {name: np.array([[value]], np.int64) for name, value in times.items()}
    return outputs


def _send_error(sender: Any, message: str, code: int) -> None:
    response = pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
    sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
