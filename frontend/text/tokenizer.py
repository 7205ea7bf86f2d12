"""The checkpoint's tokenizer: prompt text to token ids, and a table from token id to the bytes that it stands for.

tokenizer.json is used as it is: transformers would put its own normalizer into a Llama tokenizer, which changes the
ids after special tokens. With the table, detokenizer.py decodes answers in constant time per token.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from tokenizers import Tokenizer as HfTokenizer

from frontend.errors import StartupError

_ESCAPED = re.compile("\ufdd0([0-9]+)\ufdd1")
"""An escaped special token, by its number. Unicode reserves the two code points for a program's internal use."""


class Tokenizer:
    """Encodes prompts as the checkpoint's tokenizer.json does. Thread-safe.

    Special tokens are those that tokenizer.json declares special. The template can write them; a client cannot, because
    those in its text are escaped and then encoded as plain text.
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
        self._token_bytes = _token_bytes(self._tokenizer, orjson.loads(tokenizer_json), self._special_ids.values())
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
        if "\ufdd0" not in prompt:
            return self._tokenizer.encode(prompt, add_special_tokens=False).ids
        token_ids: list[int] = []
        for piece in self._special.split(prompt):
            if piece in self._special_ids:
                token_ids.append(self._special_ids[piece])
            elif piece:
                token_ids += self._text_only.encode(self.unescape_special_tokens(piece), add_special_tokens=False).ids
        return token_ids

    def encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of text that no template rendered; special tokens in it stay special tokens.

        `add_special_tokens` adds the tokens that the tokenizer puts around a text, unless the text begins with them.
        """
        token_ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not add_special_tokens:
            return token_ids
        with_special = self._tokenizer.encode(text, add_special_tokens=True).ids
        before = with_special[: max(0, len(with_special) - len(token_ids))]
        return token_ids if before and token_ids[: len(before)] == before else with_special

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text by the tokenizer's own decoder, with special tokens written out."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))

    def bytes_of(self, *, skip_special_tokens: bool, shown_token_ids: Iterable[int] = ()) -> Mapping[int, bytes]:
        """The bytes that each token adds to the text of an answer; an id without an entry adds none."""
        if not skip_special_tokens:
            return self._all_token_bytes
        shown = {token_id: self._all_token_bytes[token_id] for token_id in shown_token_ids}
        return self._token_bytes | shown if shown else self._token_bytes


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
