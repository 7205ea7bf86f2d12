"""TensorRT-LLM's gauges in Triton's /metrics, under its names, so that dashboards and scalers fit both engines."""

import time
from typing import Any

import openvino_genai as genai
import triton_python_backend_utils as pb_utils
from kv_room import KV_BLOCK_TOKENS, KvRoom

METRICS_PERIOD_NS = 100_000_000
"""Shortest time between two updates while requests run."""


class Gauges:
    """Requests and KV cache blocks; written at most ten times a second, and once more when the batch runs empty."""

    def __init__(self, labels: dict[str, str], room: KvRoom, pipeline: genai.ContinuousBatchingPipeline) -> None:
        self._pipeline, self._num_kv_blocks, self._written_ns = pipeline, room.num_blocks, 0
        self._requests = _Family("nv_trt_llm_request_metrics", "TRT LLM request metrics", "request_type", labels)
        self._kv_cache = _Family(
            "nv_trt_llm_kv_cache_block_metrics", "TRT LLM KV cache block metrics", "kv_cache_block_type", labels
        )
        self._requests.set(active=0, scheduled=0, waiting=0, max=room.max_batch_size)
        self._kv_cache.set(max=self._num_kv_blocks, tokens_per=KV_BLOCK_TOKENS)
        self._kv_cache.set(used=0, free=self._num_kv_blocks, fraction=0.0)

    def update(self, num_active: int) -> bool:
        """The engine has `num_active` requests after a step: those of the batch and those that wait for room.

        Used blocks belong to requests; blocks that are kept for a prompt with the same beginning count as free. GenAI
        measures at the start of a step, so without requests its last figure still has what the last ones held. Returns
        whether the gauges were written.
        """
        now_ns = time.monotonic_ns()
        if num_active and now_ns - self._written_ns < METRICS_PERIOD_NS:
            return False
        self._written_ns = now_ns
        metrics = self._pipeline.get_metrics()
        scheduled = min(metrics.scheduled_requests, num_active)
        self._requests.set(active=num_active, scheduled=scheduled, waiting=num_active - scheduled)
        fraction = metrics.cache_usage / 100 if num_active else 0.0
        used = round(fraction * self._num_kv_blocks)
        self._kv_cache.set(used=used, free=self._num_kv_blocks - used, fraction=fraction)
        return True


class _Family:
    """Gauges that differ in one label."""

    def __init__(self, name: str, description: str, label: str, labels: dict[str, str]) -> None:
        self._family = pb_utils.MetricFamily(name=name, description=description, kind=pb_utils.MetricFamily.GAUGE)
        self._label, self._labels = label, labels
        self._gauges: dict[str, Any] = {}

    def set(self, **values: float) -> None:
        for kind, value in values.items():
            if kind not in self._gauges:
                self._gauges[kind] = self._family.Metric(labels={**self._labels, self._label: kind})
            self._gauges[kind].set(value)
