"""Text of a model or a server, made safe for a terminal: it must not move the cursor, or type."""

_C0 = {code: chr(0x2400 + code) for code in range(0x20)}
"""Control characters by the pictures that Unicode has of them."""

_SHOWN = _C0 | {0x7F: "\u2421"} | dict.fromkeys(range(0x80, 0xA0), "\ufffd")
_TABLE = {code: shown for code, shown in _SHOWN.items() if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """The text with its control characters shown, except for line breaks and tabs."""
    return text.translate(_TABLE)
