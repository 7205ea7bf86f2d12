"""What a tokenizer.json shows about its tokens: how much text one can stand for, and where text may be cut.

With these a text that cannot fit the context is refused before it is encoded, and a long one is encoded in pieces.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

from frontend.errors import InvalidRequest

PIECE_CHARS = 16_384
"""Characters of a piece, up to the next place to cut: encoding takes about 100 bytes of memory for each."""

MAX_RUN_CHARS = 131_072
"""Most characters without a place to cut. In any language that is more than 32,768 tokens of text."""

Cut = Literal["before", "instead of"]
"""Where a piece begins: before the space between two words, or after it, because the tokenizer adds one in front."""

_BETWEEN_WORDS = re.compile(r"(?<=\w) (?=\w)")
_SPACE_INSIDE = re.compile(r"[^\sĠĊĉč▁][ Ġ▁]")
_WORD_AT_END = re.compile(r"\w.*|.*\w", re.DOTALL)
_PROBES = (("aa", "bb"), ("Haus", "ist"), ("1", "2"))
_LENGTH_KEEPING = {"ByteLevel", "Digits", "Metaspace"}


def find_cut(
    description: Mapping[str, Any], vocabulary: Collection[str], encode: Callable[[str], list[int]]
) -> Cut | None:
    """How text may be cut between two words so that the tokens stay the same; None if it may not be.

    It may be where no token of the vocabulary has a space after another character: then no merge crosses the cut.
    """
    contents = [token["content"] for token in description.get("added_tokens", ())]
    if any(map(_SPACE_INSIDE.search, [*vocabulary, *contents])) or any(map(_WORD_AT_END.fullmatch, contents)):
        return None
    candidates: dict[Cut, str] = {"before": " ", "instead of": ""}
    for cut, space in candidates.items():
        if all(encode(f"{left} {right}") == encode(left) + encode(space + right) for left, right in _PROBES):
            return cut
    return None


def pieces(text: str, cut: Cut | None) -> Iterator[str]:
    """The text in pieces that are encoded one by one. Raises InvalidRequest where it has no place to cut for too long.

    If the tokenizer's text may not be cut, that is one piece of any length.
    """
    if cut is None:
        yield text
        return
    begin = 0
    while len(text) - begin > PIECE_CHARS:
        found = _BETWEEN_WORDS.search(text, begin + PIECE_CHARS, begin + MAX_RUN_CHARS)
        if found is None:
            break
        yield text[begin : found.start()]
        begin = found.start() if cut == "before" else found.end()
    if len(text) - begin > MAX_RUN_CHARS:
        raise InvalidRequest(
            f"The text has {MAX_RUN_CHARS} characters without a space between two words; up to that many are accepted."
        )
    yield text[begin:]


def max_chars_per_token(description: Mapping[str, Any], vocabulary: Collection[str]) -> int | None:
    """The most characters of text that become one token; None if that is not known of such a tokenizer.

    It is the longest token, if no step before the vocabulary drops or joins characters, and each byte is a token.
    """
    added = description.get("added_tokens", ())
    steps = [*_steps(description.get("normalizer")), *_steps(description.get("pre_tokenizer"))]
    if any(token["lstrip"] or token["rstrip"] for token in added) or not all(map(_keeps_length, steps)):
        return None
    if not ("<0xFF>" in vocabulary or any(step["type"] == "ByteLevel" for step in steps)):
        return None
    return max(map(len, [*vocabulary, *(token["content"] for token in added)]))


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """A step, or the steps of a sequence."""
    if step is None:
        return
    inner = step.get("normalizers") or step.get("pretokenizers")
    if inner is None:
        yield step
        return
    for each in inner:
        yield from _steps(each)


def _keeps_length(step: Mapping[str, Any]) -> bool:
    """Whether the text after the step has at least as many characters."""
    match step:
        case {"type": "Replace", "pattern": {"String": str(pattern)}, "content": str(content)}:
            return len(content) >= len(pattern)
        case {"type": "Split", "behavior": str(behavior)}:
            return behavior != "Removed"
        case {"type": str(kind)}:
            return kind in _LENGTH_KEEPING or kind == "Prepend"
    return False
