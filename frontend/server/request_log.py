"""Lines of the log about requests: `Received request` when one has been read, and one line when it has ended.

No text of a prompt, of an answer or of a key is in them. Only `--log-prompts` writes prompts.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from frontend.generation import SamplingParams
from frontend.guided_decoding.spec import param_of
from frontend.openai.job import Job

from .pages import PAGES
from .request_record import Generated, RequestRecord

_log = logging.getLogger(__name__)

_MAX_CLIENT_CHARS = 200
"""Of a path or an error's message, which may quote what a client chose."""

_QUIET_PATHS = frozenset({
    "/health", "/health/live", "/health/ready", "/health/generate", "/ping", "/load", "/metrics", *PAGES,
})  # fmt: skip
"""Called every few seconds by machines, or a dozen at a time by a browser: their successes are lines of level DEBUG."""

_SHOWN = {
    field.name: field.default for field in fields(SamplingParams) if field.name not in ("guide", "shown_token_ids")
}
"""Sampling parameters, and their values where they were not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLog:
    """Writes `Received request`, unless `is_enabled` is false.

    With `decode`, from token ids to text, the line has the prompt too: its first `max_chars` characters and ids; None
    for all.
    """

    is_enabled: bool = True
    decode: Callable[[Sequence[int]], str] | None = None
    max_chars: int | None = None

    def received(self, record: RequestRecord, job: Job) -> None:
        """A request has been checked and tokenized, and is about to be compiled and queued."""
        if not self.is_enabled:
            return
        prompts = job.prompts
        counts = {"prompt_tokens": sum(map(len, prompts)), "prompts": len(prompts), "n": job.num_choices}
        params = _shown(job, with_text=self.decode is not None)
        written = self._prompt(prompts) if self.decode else {}
        _log.info(
            "Received request %s: %s",
            job.id,
            _arrival(f"for {_who(record)}, {_counted(prompts)}", {"n": job.num_choices, **params}, written),
            extra={
                "event": "received", "id": job.id, "address": record.address, **_given(key=record.key), **counts,
                "stream": job.stream, "sampling_params": params, **written,
            },
        )  # fmt: skip

    def _prompt(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """vLLM's two fields. Several prompts are written one after the other."""
        assert self.decode is not None
        token_ids = [token_id for prompt in prompts for token_id in prompt]
        return {
            "prompt": "".join(map(self.decode, prompts))[: self.max_chars],
            "prompt_token_ids": token_ids[: self.max_chars],
        }


def log_answer(record: RequestRecord) -> None:
    """The line of a request that has ended: answered, refused, failed or given up by its client."""
    level = logging.INFO if record.status < 500 else logging.WARNING
    if record.path in _QUIET_PATHS and record.status in (200, 304):
        level = logging.DEBUG
    if not _log.isEnabledFor(level):
        return
    done = record.generated
    line = _short(record) if done is None else _generated(record, done)
    _log.log(level, "%s", line, extra=_fields(record))


def _short(record: RequestRecord) -> str:
    """Of a request that has not reached the queue."""
    reason = f" {_printable(record.reason)}" if record.reason else ""
    address = f"{record.address}, " if record.key else ""
    path = _printable(record.path)
    return f"{record.method} {path} from {record.caller}: {record.status}{reason} ({address}{record.took_s:.3f} s)"


def _generated(record: RequestRecord, done: Generated) -> str:
    """Its words for the end are vLLM's; `Failed` is for what vLLM logs as an exception."""
    verb = "Finished" if not record.reason else "Aborted" if record.status == 499 else "Failed"
    ended = done.finish_reason if not record.reason else f"{record.status} {_printable(record.reason)}"
    more = "".join(
        form % value
        for form, value in (
            (", first token after %.2f s", done.first_token_s),
            (", %.1f tokens/s", done.tokens_per_s),
            (", %d cached tokens", done.num_cached_tokens),
        )
        if value is not None
    )
    return (
        f"{verb} request {done.id} {ended}: {done.num_prompt_tokens} prompt tokens, "
        f"{done.num_completion_tokens} completion tokens, {record.took_s:.2f} s, for {_who(record)}: "
        f"{record.method} {_printable(record.path)} {record.status}{more}"
    )


def _fields(record: RequestRecord) -> dict[str, Any]:
    """For JSON. The names are those of OpenAI's usage object where it has them."""
    done = record.generated
    generated = {} if done is None else _given(
        id=done.id,
        finish_reason=done.finish_reason or None,
        prompt_tokens=done.num_prompt_tokens,
        completion_tokens=done.num_completion_tokens,
        cached_tokens=done.num_cached_tokens,
        time_to_first_token_s=_rounded(done.first_token_s),
        tokens_per_s=_rounded(done.tokens_per_s),
    )  # fmt: skip
    return {
        "event": "answered",
        "method": record.method,
        "path": record.path[:_MAX_CLIENT_CHARS],
        "status": record.status,
        "address": record.address,
        **_given(
            key=record.key,
            reason=record.reason[:_MAX_CLIENT_CHARS] or None,
            code=record.error.code if record.error else None,
        ),
        **generated,
        "total_s": _rounded(record.took_s),
    }


def _shown(job: Job, *, with_text: bool) -> dict[str, Any]:
    """The sampling parameters that were set, of the first generation. What has text or is long is only counted."""
    params = job.requests[0].sampling_params
    shown = {name: value for name, default in _SHOWN.items() if (value := getattr(params, name)) != default}
    if params.stop and not with_text:
        shown["stop"] = f"{len(params.stop)} strings"
    if params.logit_bias is not None:
        shown["logit_bias"] = f"{sum(map(bool, params.logit_bias))} tokens"
    if params.stop_token_ids:
        shown["stop_token_ids"] = sorted(params.stop_token_ids)
    if job.constraint is not None:
        shown["guided_by"] = param_of(job.constraint)
    return shown


def _arrival(origin: str, params: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    """In vLLM's order where the prompt is written."""
    values = ", ".join(f"{name}={value!r}" for name, value in params.items())
    sampling = f"sampling_params: SamplingParams({values})"
    if not written:
        return f"{origin}, {sampling}"
    return f"prompt: {written['prompt']!r}, {sampling}, prompt_token_ids: {written['prompt_token_ids']}, {origin}"


def _counted(prompts: Sequence[Sequence[int]]) -> str:
    several = f" in {len(prompts)} prompts" if len(prompts) > 1 else ""
    return f"{sum(map(len, prompts))} prompt tokens{several}"


def _who(record: RequestRecord) -> str:
    return f"{record.key} from {record.address}" if record.key else record.address


def _printable(text: str) -> str:
    """In one line, and without what a terminal would obey."""
    text = text if len(text) <= _MAX_CLIENT_CHARS else text[:_MAX_CLIENT_CHARS] + "..."
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _given(**values: Any) -> Mapping[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
