"""The items that a stored response was generated from, as OpenAI lists them: page by page."""

from collections.abc import Sequence
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from frontend.errors import InvalidRequest
from frontend.openai.job import StoredReply

Order = Literal["asc", "desc"]

_ID_PREFIXES = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}


class ItemList(BaseModel):
    """OpenAI's object. The ids are those of the first and the last item, None without one."""

    object: Literal["list"] = "list"
    data: Sequence[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


def list_items(stored: StoredReply, limit: int, order: Order, after: str | None) -> ItemList:
    """At most `limit` items, those behind the item `after`; with `desc` the newest comes first.

    Of a response that continues others they are the whole conversation. Raises InvalidRequest if no item is `after`.
    """
    items = _items_of(stored)
    if order == "desc":
        items.reverse()
    if after is not None:
        behind = [number for number, item in enumerate(items, 1) if item["id"] == after]
        if not behind:
            raise InvalidRequest(f"No item `{after:.100}` is in this response.", param="after")
        items = items[behind[0] :]
    page = items[:limit]
    first_id, last_id = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return ItemList(data=page, first_id=first_id, last_id=last_id, has_more=len(items) > limit)


def _items_of(stored: StoredReply) -> list[dict[str, Any]]:
    """Oldest first. What was stored ends with the response's own output."""
    conversation = orjson.loads(stored.conversation)
    num_items = len(conversation) - len(orjson.loads(stored.reply)["output"])
    return [_complete(item, number, stored.id) for number, item in enumerate(conversation[:num_items])]


def _complete(item: dict[str, Any], number: int, response_id: str) -> dict[str, Any]:
    """An item as OpenAI returns it. Clients may leave out its type and its status, and give it no id."""
    kind = item.get("type", "message")
    own_id = f"{_ID_PREFIXES[kind]}{response_id.partition('_')[2]}_{number}"
    completed = {"id": own_id, "type": kind, "status": "completed"} | item
    if item.get("role") == "assistant":
        completed["content"] = [_answer_part(part) for part in item["content"]]
    return completed


def _answer_part(part: dict[str, Any]) -> dict[str, Any]:
    """A string of an assistant's message was read as a client's text."""
    return {"annotations": []} | part | {"type": "output_text"}
