"""The checkpoint's tokenizer: prompt text to token ids, and a table from token id to the bytes it stands for.

Refuses to rebuild tokenizer.json (transformers would put its own normalizer into a Llama tokenizer, which changes the
ids after special tokens) and to decode: the table is what lets text.py do that in constant time per token.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from tokenizers import Tokenizer as HfTokenizer

from frontend.errors import StartupError
from frontend.generation import EndTokens

_SHIELDED = re.compile("\ufdd0([0-9]+)\ufdd1")
"""A control token that a user wrote, by number. Unicode reserves the two code points for a program's own use."""


class Tokenizer:
    """Encodes prompts to the ids that the shipped tokenizer.json gives. For any thread.

    Control tokens that the template writes are control tokens; what a user writes is text, whatever it looks like.
    """

    def __init__(self, tokenizer_json: bytes) -> None:
        try:
            self._tokenizer = HfTokenizer.from_str(tokenizer_json.decode())
            self._text_only = HfTokenizer.from_str(tokenizer_json.decode())
        except Exception as exc:  # tokenizers raises nothing narrower
            raise StartupError(f"tokenizer.json cannot be read: {exc}") from exc
        self._text_only.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._control_ids = {token.content: token_id for token_id, token in added.items() if token.special}
        self._control_tokens = sorted(self._control_ids, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, self._control_tokens)) or '(?!)'})")
        self._token_bytes = _token_bytes(self._tokenizer, orjson.loads(tokenizer_json), self._control_ids.values())
        controls = {token_id: content.encode() for content, token_id in self._control_ids.items()}
        self._all_token_bytes = self._token_bytes | controls

    def escape_special_tokens(self, text: str) -> str:
        """`text` as a user's words: control tokens in it come out of `encode` as plain text."""
        text = text.replace("\ufdd0", "").replace("\ufdd1", "")
        return self._control.sub(lambda match: f"\ufdd0{self._control_tokens.index(match[0])}\ufdd1", text)

    def unescape_special_tokens(self, prompt: str) -> str:
        """The prompt as people read it."""
        return _SHIELDED.sub(lambda match: self._control_tokens[int(match[1])], prompt)

    def control_token_id(self, content: str) -> int | None:
        """The control token that is written `content`; None if the vocabulary has it not, or has it as text."""
        return self._control_ids.get(content)

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt. Nothing is added: templates write the beginning-of-sequence token."""
        if "\ufdd0" not in prompt:
            return self._tokenizer.encode(prompt, add_special_tokens=False).ids
        token_ids: list[int] = []
        for piece in self._control.split(prompt):
            if piece in self._control_ids:
                token_ids.append(self._control_ids[piece])
            elif piece:
                token_ids += self._text_only.encode(self.unescape_special_tokens(piece), add_special_tokens=False).ids
        return token_ids

    def encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of text that is no conversation; control tokens in it are control tokens.

        With `add_special_tokens` what the tokenizer puts around a text is there once, also if the text has it already.
        """
        token_ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not add_special_tokens:
            return token_ids
        with_special = self._tokenizer.encode(text, add_special_tokens=True).ids
        before = with_special[: max(0, len(with_special) - len(token_ids))]
        return token_ids if before and token_ids[: len(before)] == before else with_special

    def decode(self, token_ids: Sequence[int]) -> str:
        """The tokenizer's own idea of the text, control tokens written out."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))

    def bytes_of(self, *, skip_special_tokens: bool, shown_token_ids: Iterable[int] = ()) -> Mapping[int, bytes]:
        """What each token adds to the text of an answer; an id that is not in there adds nothing."""
        if not skip_special_tokens:
            return self._all_token_bytes
        shown = {token_id: self._all_token_bytes[token_id] for token_id in shown_token_ids}
        return self._token_bytes | shown if shown else self._token_bytes

    def end_tokens(self, special_tokens: Mapping[str, str], eos_token_ids: Sequence[int]) -> EndTokens:
        """The checkpoint's end tokens: generation_config.json's first, then the tokenizer's own."""
        end_ids = list(eos_token_ids)
        own = self._tokenizer.token_to_id(special_tokens.get("eos_token", ""))
        if own is not None and own not in end_ids:
            end_ids.append(own)
        if not end_ids:
            raise StartupError("the checkpoint names no end token (eos_token in tokenizer_config.json)")
        pad_id = self._tokenizer.token_to_id(special_tokens.get("pad_token", ""))
        return EndTokens(
            end_id=end_ids[0],
            pad_id=end_ids[0] if pad_id is None else pad_id,
            other_end_ids=frozenset(end_ids[1:]),
        )


def _token_bytes(tokenizer: HfTokenizer, description: dict[str, Any], special_ids: Any) -> dict[int, bytes]:
    """What each token adds to the text. Special tokens have no text and no entry."""
    to_bytes = _piece_decoder(description.get("decoder") or {})
    without_text = set(special_ids)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return {token_id: to_bytes(piece) for piece, token_id in vocabulary.items() if token_id not in without_text}


def _piece_decoder(decoder: dict[str, Any]) -> Callable[[str], bytes]:
    """How a vocabulary spells bytes: byte-level BPE, or SentencePiece with or without byte fallback."""
    steps = {step["type"] for step in decoder.get("decoders", [decoder]) if "type" in step}
    if "ByteLevel" in steps:
        return _byte_level_bytes
    if steps & {"ByteFallback", "Metaspace"}:
        return _sentencepiece_bytes
    raise StartupError(f"tokenizer.json decodes by {sorted(steps)}; byte-level BPE and SentencePiece are known here")


def _sentencepiece_bytes(piece: str) -> bytes:
    """`<0x0A>` is a byte, `▁` a space. The space of the first word stays: the model wrote it."""
    if len(piece) == 6 and (byte := _BYTE_PIECE.fullmatch(piece)):
        return bytes.fromhex(byte[1])
    return piece.replace("▁", " ").encode()


_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 stands for itself, the rest for U+0100 and on, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()


def _byte_level_bytes(piece: str) -> bytes:
    """An added token may hold characters outside the alphabet: then it is written as it is."""
    try:
        return bytes([_BYTE_LEVEL[character] for character in piece])
    except KeyError:
        return piece.encode()
