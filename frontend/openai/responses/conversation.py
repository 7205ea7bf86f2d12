"""Conversations that continue a stored response: what comes before the input of a request, and what is stored of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from pydantic import TypeAdapter

from frontend.errors import UnsupportedParameter
from frontend.openai.job import StoredReply

from .response import ResponsesWriter
from .types import InputItem, ResponsesRequest

_ITEMS = TypeAdapter(list[InputItem])


@dataclass(frozen=True, slots=True)
class Conversation:
    """The items of a stored response's conversation, as JSON; empty for a request that continues none."""

    items: bytes = b"[]"

    def before(self, body: ResponsesRequest) -> ResponsesRequest:
        """The body with these items in front of its input."""
        return body.model_copy(update={"input": [*_ITEMS.validate_json(self.items), *body.input]})


def check_memory(body: ResponsesRequest, earlier: Conversation | None) -> None:
    """Raises UnsupportedParameter for a field that needs stored responses where there are none."""
    if earlier is not None:
        return
    for param, is_asked, accepted in (
        ("store", body.store, " or false"),
        ("previous_response_id", body.previous_response_id, ", and the whole conversation as `input`"),
    ):
        if is_asked:
            raise UnsupportedParameter(
                f"`{param}` is not supported: this server runs without `--response-store`. Leave it out or send"
                f" null{accepted}.",
                param=param,
            )


def to_stored(items: Sequence[InputItem], writer: ResponsesWriter) -> StoredReply:
    """What is stored of a complete response; `items` are the whole conversation before it."""
    response = writer.finished
    before = [item.model_dump(mode="json", exclude_none=True) for item in items]
    return StoredReply(
        id=response["id"],
        created_at=response["created_at"],
        reply=orjson.dumps(response),
        conversation=orjson.dumps([*before, *response["output"]]),
    )
