"""The CPU engine as a Triton model: the tensors of `tensorrt_llm` in and out, streamed for each request."""

from typing import Any

import triton_python_backend_utils as pb_utils
from batcher import Batcher
from clients import GuidedClient, ScoredClient, TokenClient
from counters import RequestCounters
from gauges import Gauges
from generation import GenerationRequest, InvalidRequest, decode_request
from guides import Guides
from scoring import Scoring
from settings import InvalidSettings, MissingEngine, open_pipeline, read_settings
from warm_up import warm_up


class TritonPythonModel:
    """Loaded by Triton's Python backend, which calls the three methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load and compile the engine, and compute once."""
        try:
            settings = read_settings(args)
        except (MissingEngine, InvalidSettings) as error:
            raise pb_utils.TritonModelException(str(error)) from error
        pb_utils.Logger.log_info(f"{args['model_name']} computes in {settings.precision}")
        pipeline = open_pipeline(settings)
        warm_up(pipeline, settings.limits.max_seq_len, settings.limits.vocab_size)
        labels = {"model": args["model_name"], "version": args["model_version"]}
        self._limits = settings.limits
        self._guides = Guides(settings.engine_dir, pipeline.get_tokenizer())
        self._counters = RequestCounters(labels)
        self._gauges = Gauges(labels, settings.kv_room, pipeline)
        self._batcher = Batcher(pipeline, settings.kv_room, self._report)
        self._scoring = Scoring(settings.engine_dir, settings.limits.max_seq_len, self._batcher.call)

    def execute(self, requests: list[Any]) -> None:
        """Add the requests to the batch. Each is answered through its own response sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
                decoded = decode_request(inputs, self._limits)
            except InvalidRequest as error:
                TokenClient(sender, self._counters).refuse(str(error))
            else:
                self._submit(decoded, sender)

    def finalize(self) -> None:
        """Triton is shutting down."""
        self._guides.close()
        self._batcher.close()
        self._scoring.close()

    def _report(self, num_active: int) -> None:
        """After each step."""
        if self._gauges.update(num_active):
            self._counters.flush()

    def _submit(self, request: GenerationRequest, sender: Any) -> None:
        client = TokenClient(sender, self._counters)
        if request.is_scored:
            client = ScoredClient(sender, self._counters, self._scoring)
        if request.generation_config.structured_output_config is None:
            self._batcher.submit(request, client)
        else:
            guided = GuidedClient(client, self._guides.started)
            self._guides.pass_on(
                request,
                submit=lambda: self._batcher.submit(request, guided),
                refuse=lambda error: client.refuse(str(error)),
            )
