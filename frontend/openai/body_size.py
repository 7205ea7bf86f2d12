"""How much JSON a body may hold. Counted in its bytes, before anything is built of it. Pure.

A list of a million empty objects is 3 MB of JSON and hundreds of MB of values, and one call into the JSON parser that
stops the event loop. So what costs memory and time is bounded, whatever the body's size.
"""

import re

from frontend.errors import InvalidRequest

MAX_NAMES = 32_768
"""Objects, lists and names of fields in a body: 1,000 messages with two content parts each have 11,000."""

MIN_VALUES = 131_072
"""Values in a body, such as token ids; more if the context is longer than that."""

_ROOM_FOR_TOOLS = 1024 * 1024
"""Bytes of a body beside its text: tools, schemas, and what JSON needs around many messages."""

_BYTES_PER_TOKEN = 16
"""Bytes of JSON that a token of a prompt takes: 4 to 6 in most texts, and 12 for an escaped character beyond U+FFFF."""

_TOKEN = re.compile(rb'"[^"]*"(?P<is_name>\s*:)?|[,\[\]{}]')


def max_values(max_seq_len: int) -> int:
    """How many values a body may have, so that a prompt of token ids can fill the context (in tokens)."""
    return max(MIN_VALUES, max_seq_len)


def default_max_body_bytes(max_seq_len: int) -> int:
    """The largest body in bytes, by the context in tokens: what the context can hold, with room for tools."""
    return max_seq_len * _BYTES_PER_TOKEN + _ROOM_FOR_TOOLS


def check_structure(raw: bytes, max_values: int) -> None:
    """Raises InvalidRequest for a body of more than `max_values` values or MAX_NAMES objects, lists and names.

    It names the field where the limit is passed. What is no JSON may pass: the parser refuses it.
    """
    if raw.count(b",") <= max_values and raw.count(b"{") + raw.count(b"[") + raw.count(b":") <= MAX_NAMES:
        return  # even if what is inside of strings is counted too
    values, names, depth, field = 0, 0, 0, b""
    text = raw.replace(rb"\\", b"").replace(rb"\"", b"")  # now every quotation mark begins or ends a string
    for token in _TOKEN.finditer(text):
        match token[0][:1]:
            case b'"':
                names += token["is_name"] is not None
                field = token[0] if token["is_name"] and depth == 1 else field
            case b",":  # every value follows one, or is the first of a list or an object
                values += 1
            case b"{" | b"[":
                names += 1
                depth += 1
            case _:
                depth -= 1
        if values > max_values or names > MAX_NAMES:
            limit = f"{max_values} values" if values > max_values else f"{MAX_NAMES} objects, lists and names of fields"
            raise _too_long(field, limit)


def _too_long(field: bytes, limit: str) -> InvalidRequest:
    """`field` is the name of a field of the body with its quotation marks; empty for a body without fields."""
    param = field[1:101].partition(b'"')[0].decode(errors="replace")
    too_long = f"`{param}` is too long: with it, the" if param else "The"
    return InvalidRequest(f"{too_long} body has more than {limit}, which is the limit.", param=param or None)
