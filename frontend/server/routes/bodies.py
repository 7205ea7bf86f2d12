"""Request bodies: read within the size limit, check against the type, report ignored fields."""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from frontend.errors import (
    BodyTooLarge,
    InvalidRequest,
    ModelNotFound,
    UnsupportedEncoding,
    UnsupportedMediaType,
    UnsupportedParameter,
)
from frontend.openai.body import Body
from frontend.openai.body_size import check_structure, max_values
from frontend.openai.reply import Reply
from frontend.openai.unsupported import ignored_params
from frontend.server.request_record import record_of
from frontend.server.service import Service

_log = logging.getLogger(__name__)

_MAX_NAMES_IN_HEADER = 32
"""Names that a response header lists at most."""

AnyBody = TypeVar("AnyBody", bound=BaseModel)
Result = TypeVar("Result")


async def with_body(http: Request, body: type[AnyBody], service: Service, work: Callable[[AnyBody], Result]) -> Result:
    """The result of `work` with the checked body. For a large body both are done in a thread, in one go.

    So what was built of a body never waits for a thread: that takes several times the memory of its bytes. Raises
    InvalidRequest naming the field, BodyTooLarge, UnsupportedMediaType, and what `work` raises.
    """
    _check_content_type(http)
    most = max_values(service.served_model.engine.max_seq_len)
    record = record_of(http.scope)
    record.begin("read")
    with service.body_memory.body(http.scope.get("state", {}).get("caller", "")) as grow:
        raw = await _read(http, service.max_body_bytes, grow)
        record.begin("tokenize")
        return await service.off_loop.run(
            lambda: work(_check(raw, body, most)), http, len(raw), service.request_timeout_s
        )


def _check(raw: bytes, body: type[AnyBody], max_values: int) -> AnyBody:
    """The body as its type. Its structure is counted before anything is built of it."""
    check_structure(raw, max_values)
    try:
        return body.model_validate_json(raw)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        if not first["loc"]:
            raise InvalidRequest(f"The body is not a JSON object that can be read: {first['msg']}.") from exc
        param = _path(first, from_json(raw))
        raise InvalidRequest(f"Invalid `{param}`: {first['msg']}.", param=param) from exc


def _path(error: ErrorDetails, body: Any) -> str:
    """The path of an error in the body. Pydantic's `loc` also has names of types, where a value may be of several."""
    path, value, steps = "", body, error["loc"]
    for number, step in enumerate(steps, 1):
        if isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if isinstance(value, list) else None
        elif isinstance(value, dict) and (step in value or (number == len(steps) and error["type"] == "missing")):
            path += f".{step}"
            value = value.get(step)
    return path.removeprefix(".")


def _check_content_type(http: Request) -> None:
    given = http.headers.get("content-type")
    if given is None:  # as a page of any origin may send it, without the browser asking first
        raise UnsupportedMediaType("The body must be application/json; the request has no Content-Type.")
    content_type = given.partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMediaType(f"The body must be application/json, not {content_type}.")
    encoding = http.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):  # ignored, a compressed body would be answered as JSON that cannot be read
        raise UnsupportedEncoding(f"The body must be sent as it is, without Content-Encoding: {encoding[:100]}.")


async def _read(http: Request, max_bytes: int, grow: Callable[[int], None]) -> bytes:
    """The body; reading stops as soon as it is larger than allowed. `grow` counts its bytes for the limit of all."""
    body = bytearray()
    async for piece in http.stream():
        grow(len(piece))
        body += piece
        if len(body) > max_bytes:
            raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    return bytes(body)


def new_reply(model: str | None, service: Service, prefix: str = "cmpl-") -> Reply:
    """A reply by `model`, with a new id and the current time. Raises ModelNotFound."""
    check_model(model, service)
    return Reply(
        id=f"{prefix}{secrets.token_hex(16)}",
        created=int(time.time()),
        model=service.model_names[0] if model is None else model,
        system_fingerprint=service.system_fingerprint,
    )


def check_model(model: str | None, service: Service) -> None:
    """Raises ModelNotFound for a name that is not served. None is the model that is served."""
    if model is not None and model not in service.model_names:
        raise ModelNotFound(model, service.model_names)


def report_unguided(tools: Sequence[str]) -> dict[str, str]:
    """The header that lists the tools whose arguments may be any JSON object, as their schemas cannot be guaranteed."""
    names = tools[:_MAX_NAMES_IN_HEADER]
    return {"x-unguided-tools": ", ".join(map(quote, names))} if names else {}


def report_ignored(body: Body, reply: Reply, service: Service) -> dict[str, str]:
    """The header that lists the fields without effect. Names are percent-encoded: a client chose them.

    Raises UnsupportedParameter if the operator chose to refuse unknown fields.
    """
    ignored = ignored_params(body)
    if not ignored:
        return {}
    if service.reject_unknown_parameters:
        raise UnsupportedParameter(f"`{ignored[0][:100]}` is not known to this server.", param=ignored[0][:100])
    names = ", ".join(quote(name[:100]) for name in ignored[:_MAX_NAMES_IN_HEADER])
    _log.info("%s ignored parameters: %s", reply.id, names)
    return {"x-ignored-params": names}
