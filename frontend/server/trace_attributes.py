"""What a trace says of a request, under the names of OpenTelemetry's GenAI conventions and of vLLM's traces. Pure.

No text of a prompt, of an answer, of a stop string or of a key is in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from frontend.openai.job import Job

from .request_record import Generated, RequestRecord, Step

Attributes = Mapping[str, str | int | float | Sequence[str]]

PROVIDER = "mixtral-triton"


def span_name(record: RequestRecord) -> str:
    """`chat MODEL`, as the conventions have it; the method alone if the request was refused before it was a job."""
    return f"{record.job.operation} {record.job.model}" if record.job else record.method


def attributes_of(record: RequestRecord, request_id: str) -> Attributes:
    """Of a request that has ended. Latencies are in seconds."""
    status = {} if record.status == 0 else {"http.response.status_code": record.status}
    job = {} if record.job is None else _of_job(record.job)
    generated = {} if record.generated is None else _of_generated(record.generated)
    found = _of_request(record, request_id) | status | job | generated | (_latencies(record) if record.job else {})
    return {name: value for name, value in found.items() if value is not None}


def _of_request(record: RequestRecord, request_id: str) -> dict[str, Any]:
    return {
        "http.request.method": record.method,
        "url.path": record.path,
        "client.address": record.address,
        "enduser.id": record.key,
        "error.type": (record.error.code or str(record.status)) if record.error else None,
        "frontend.request_id": request_id,
    }


def _of_job(job: Job) -> dict[str, Any]:
    """Sampling parameters are those of the first generation."""
    params = job.requests[0].sampling_params
    return {
        "gen_ai.operation.name": job.operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": job.model,
        "gen_ai.response.model": job.model,
        "gen_ai.response.id": job.id,
        "gen_ai.request.id": job.id,
        "gen_ai.request.stream": job.stream,
        "gen_ai.request.max_tokens": params.max_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.request.top_k": params.top_k,
        "gen_ai.request.presence_penalty": params.presence_penalty,
        "gen_ai.request.frequency_penalty": params.frequency_penalty,
        "gen_ai.request.choice.count": job.num_choices if job.num_choices != 1 else None,
        "gen_ai.request.n": job.num_choices,
        "gen_ai.usage.num_sequences": len(job.requests),
    }


def _of_generated(done: Generated) -> dict[str, Any]:
    return {
        "gen_ai.response.finish_reasons": done.finish_reason.split(", ") if done.finish_reason else None,
        "gen_ai.usage.input_tokens": done.num_prompt_tokens,
        "gen_ai.usage.prompt_tokens": done.num_prompt_tokens,
        "gen_ai.usage.output_tokens": done.num_completion_tokens,
        "gen_ai.usage.completion_tokens": done.num_completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": done.num_cached_tokens,
        "gen_ai.latency.time_to_first_token": done.first_token_s,
        "gen_ai.response.time_to_first_chunk": done.first_token_s,
    }


def _latencies(record: RequestRecord) -> dict[str, float | None]:
    ended_at = record.arrived_at + record.took_s
    at = record.steps.get

    def between(begin: Step, end: float | None) -> float | None:
        began_at = at(begin)
        return None if began_at is None or end is None else end - began_at

    return {
        "gen_ai.latency.time_in_queue": between("queue", at("first_token")),
        "gen_ai.latency.time_in_model_prefill": between("first_token", at("decode")),
        "gen_ai.latency.time_in_model_decode": between("decode", ended_at),
        "gen_ai.latency.time_in_model_inference": between("first_token", ended_at),
        "gen_ai.latency.e2e": record.took_s,
    }
