"""Find the end of a JSON object or array in text that comes in pieces. Not here: a check that it is valid JSON."""

import re

_BRACKET_OR_QUOTE = re.compile(r'["{}\[\]]')
_QUOTE_OR_ESCAPE = re.compile(r'["\\]')


class Nesting:
    """Counts brackets outside of strings; `depth` of them are open already."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._in_string = False
        self._escaped = False

    def end(self, text: str, begin: int = 0) -> int | None:
        """The index after the bracket that closes the first one; None if `text` does not have it from `begin` on."""
        at = begin
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_QUOTE_OR_ESCAPE if self._in_string else _BRACKET_OR_QUOTE).search(text, at)
            if found is None:
                return None
            at = found.end()
            if self._passes_end(found[0]):
                return at
        return None

    def _passes_end(self, character: str) -> bool:
        if character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = not self._in_string
        else:
            self._depth += 1 if character in "{[" else -1
            return self._depth <= 0
        return False
