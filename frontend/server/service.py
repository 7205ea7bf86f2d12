"""The parts that routes work with, put together once at start by `frontend/__main__.py`."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from frontend.guided_decoding import GuideCompiler
from frontend.text.served_model import ServedModel
from frontend.triton.client import TritonClient

from .admission import SlotQueue
from .body_memory import BodyMemory
from .load import Overview
from .metrics import Metrics
from .off_loop import OffLoop
from .request_log import RequestLog
from .response_store import ResponseStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One served model. `started` is in seconds since 1970; `engine_versions` maps packages to versions.

    `tokenizer_config` is tokenizer_config.json with the chat template.
    `triton_metrics_url` is empty if Triton's metrics are not read. `system_fingerprint` is None unless replies have it.
    `responses` is None where no response is stored. `left` are generations whose client has left before the engine's
    first response, see run.py.
    """

    model_names: tuple[str, ...]
    served_model: ServedModel
    triton: TritonClient
    admission: SlotQueue
    overview: Overview
    guides: GuideCompiler
    metrics: Metrics
    body_memory: BodyMemory
    max_body_bytes: int
    request_timeout_s: float
    reject_unknown_parameters: bool
    started: int
    engine_versions: Mapping[str, str]
    tokenizer_config: Mapping[str, Any]
    triton_metrics_url: str = ""
    system_fingerprint: str | None = None
    off_loop: OffLoop = field(default_factory=OffLoop)
    responses: ResponseStore | None = None
    request_log: RequestLog = field(default_factory=RequestLog)
    left: set[asyncio.Task[None]] = field(default_factory=set)
