"""The checkpoint's tokenizer: prompt text to token ids, and a table from token id to the bytes that it stands for.

tokenizer.json is used as it is: transformers would put its own normalizer into a Llama tokenizer, which changes the
ids after special tokens. With the table, detokenizer.py decodes answers in constant time per token.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import orjson
from tokenizers import Tokenizer as HfTokenizer

from frontend.errors import StartupError

from .tokenizer_bounds import find_cut, max_chars_per_token, pieces

# One text at a time needs no threads of the tokenizer's own. It reads this at every call.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_ESCAPED = re.compile("\ufdd0([0-9]+)\ufdd1")
"""An escaped special token, by its number. Unicode reserves the two code points for a program's internal use."""


class Tokenizer:
    """Encodes prompts as the checkpoint's tokenizer.json does. Thread-safe; while it encodes, other threads run.

    Special tokens are those that tokenizer.json declares special. The template can write them; a client cannot, because
    those in its text are escaped and then encoded as plain text. `max_chars_per_token` is the most characters of a
    text that one token stands for; None if that is not known.
    """

    def __init__(self, tokenizer_json: bytes) -> None:
        try:
            self._tokenizer = HfTokenizer.from_str(tokenizer_json.decode())
            self._text_only = HfTokenizer.from_str(tokenizer_json.decode())
        except Exception as exc:  # tokenizers raises nothing narrower
            raise StartupError(f"tokenizer.json cannot be read: {exc}") from exc
        self._text_only.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = {token.content: token_id for token_id, token in added.items() if token.special}
        self._special_tokens = sorted(self._special_ids, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, self._special_tokens)) or '(?!)'})")
        description, vocabulary = orjson.loads(tokenizer_json), self._tokenizer.get_vocab(with_added_tokens=False)
        self.max_chars_per_token = max_chars_per_token(description, vocabulary)
        self._cut = find_cut(description, vocabulary, lambda text: _encode(self._tokenizer, text))
        self._before, self._after = _around(self._tokenizer)
        self._token_bytes = _token_bytes(self._tokenizer, description, self._special_ids.values())
        written_out = {token_id: content.encode() for content, token_id in self._special_ids.items()}
        self._all_token_bytes = self._token_bytes | written_out

    def escape_special_tokens(self, text: str) -> str:
        """A client's text with its special tokens escaped, so that `encode` treats them as plain text."""
        text = text.replace("\ufdd0", "").replace("\ufdd1", "")
        return self._special.sub(lambda match: f"\ufdd0{self._special_tokens.index(match[0])}\ufdd1", text)

    def unescape_special_tokens(self, prompt: str) -> str:
        """The prompt with its special tokens as they were written."""
        return _ESCAPED.sub(lambda match: self._special_tokens[int(match[1])], prompt)

    def special_token_id(self, content: str) -> int | None:
        """The id of the special token `content`; None if the vocabulary has no such special token."""
        return self._special_ids.get(content)

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt. Nothing is added: the template writes the beginning-of-sequence token."""
        return [*chain.from_iterable(self.encode_in_pieces(prompt))]

    def encode_in_pieces(self, prompt: str) -> Iterator[list[int]]:
        """The same piece by piece, so that a caller may stop when there are too many tokens.

        Raises InvalidRequest for text of more than `tokenizer_bounds.MAX_RUN_CHARS` without a space between two words.
        """
        if "\ufdd0" not in prompt:
            yield from self._pieces(self._tokenizer, prompt)
            return
        for part in self._special.split(prompt):
            if part in self._special_ids:
                yield [self._special_ids[part]]
            elif part:
                yield from self._pieces(self._text_only, self.unescape_special_tokens(part))

    def encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of text that no template rendered; special tokens in it stay special tokens.

        `add_special_tokens` adds the tokens that the tokenizer puts around a text, unless the text begins with them.
        """
        return [*chain.from_iterable(self.encode_text_in_pieces(text, add_special_tokens=add_special_tokens))]

    def encode_text_in_pieces(self, text: str, *, add_special_tokens: bool) -> Iterator[list[int]]:
        """The same piece by piece, as `encode_in_pieces`."""
        encoded = self._pieces(self._tokenizer, text)
        first = next(encoded)
        is_complete = not add_special_tokens or (self._before and first[: len(self._before)] == self._before)
        yield from [first] if is_complete else [self._before, first]
        yield from encoded
        if not is_complete:
            yield self._after

    def _pieces(self, tokenizer: HfTokenizer, text: str) -> Iterator[list[int]]:
        return (_encode(tokenizer, piece) for piece in pieces(text, self._cut))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text by the tokenizer's own decoder, with special tokens written out."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))

    def strings_of(self, token_ids: Sequence[int]) -> list[str]:
        """The tokens as tokenizer.json writes them, such as `▁Haus`; an id without a token is an empty string."""
        return [self._tokenizer.id_to_token(token_id) or "" for token_id in token_ids]

    def bytes_of(self, *, skip_special_tokens: bool, shown_token_ids: Iterable[int] = ()) -> Mapping[int, bytes]:
        """The bytes that each token adds to the text of an answer; an id without an entry adds none."""
        if not skip_special_tokens:
            return self._all_token_bytes
        shown = {token_id: self._all_token_bytes[token_id] for token_id in shown_token_ids}
        return self._token_bytes | shown if shown else self._token_bytes


def _encode(tokenizer: HfTokenizer, text: str) -> list[int]:
    """The batch method releases the GIL; `encode` does not (tokenizers 0.23, bindings/python/src/tokenizer.rs)."""
    ids: list[int] = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return ids


def _around(tokenizer: HfTokenizer) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and after a text."""
    text = _encode(tokenizer, "a")
    with_special = tokenizer.encode("a", add_special_tokens=True).ids
    begin = next(at for at in range(len(with_special)) if with_special[at : at + len(text)] == text)
    return with_special[:begin], with_special[begin + len(text) :]


def _token_bytes(tokenizer: HfTokenizer, description: dict[str, Any], special_ids: Any) -> dict[int, bytes]:
    """The bytes that each token adds to the text. Special tokens have no entry."""
    to_bytes = _piece_decoder(description.get("decoder") or {})
    without_text = set(special_ids)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return {token_id: to_bytes(piece) for piece, token_id in vocabulary.items() if token_id not in without_text}


def _piece_decoder(decoder: dict[str, Any]) -> Callable[[str], bytes]:
    """The function from a token's text in the vocabulary to its bytes, for byte-level BPE or SentencePiece."""
    steps = {step["type"] for step in decoder.get("decoders", [decoder]) if "type" in step}
    if "ByteLevel" in steps:
        return _byte_level_bytes
    if steps & {"ByteFallback", "Metaspace"}:
        return _sentencepiece_bytes
    raise StartupError(f"tokenizer.json decodes by {sorted(steps)}; byte-level BPE and SentencePiece are known here")


def _sentencepiece_bytes(piece: str) -> bytes:
    """`<0x0A>` is a byte, `▁` a space. The space before the first word is kept: the model generated it."""
    if len(piece) == 6 and (byte := _BYTE_PIECE.fullmatch(piece)):
        return bytes.fromhex(byte[1])
    return piece.replace("▁", " ").encode()


_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable Latin-1 stands for itself, U+0100 and following for the other bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()


def _byte_level_bytes(piece: str) -> bytes:
    """An added token may have characters outside the alphabet; then its bytes are those of its text."""
    try:
        return bytes([_BYTE_LEVEL[character] for character in piece])
    except KeyError:
        return piece.encode()
