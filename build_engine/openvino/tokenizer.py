"""The tokenizer models that GenAI opens beside an engine. They cannot be used on text.

GenAI gets only token ids. It reads the vocabulary for guided decoding from the detokenizer, and takes each entry for
the exact bytes of its token.
"""

import os
import re
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import Model, Node, op

from build_engine.checkpoint import TOKENIZER, Checkpoint
from build_engine.errors import CheckpointError

from .weights import save_model

_BYTE_PIECE = re.compile(rb"<0x([0-9A-Fa-f]{2})>")


def write_tokenizer(checkpoint: Checkpoint, directory: Path) -> None:
    """Write both models into `directory`, which it makes. Raises CheckpointError for what OpenVINO cannot convert."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # transformers would warn that PyTorch is absent
    from openvino_tokenizers import convert_tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint.path)
        end_tokens = checkpoint.end_tokens
        encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
        special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        _spell_out(decoder, {*special, end_tokens.end_id, *end_tokens.other_end_ids})
    except Exception as error:  # neither library documents what it raises
        raise CheckpointError(
            f"{TOKENIZER}: cannot be converted ({error}); accepted: a tokenizer that OpenVINO knows"
        ) from error
    directory.mkdir()
    save_model(encoder, directory / "openvino_tokenizer.xml")
    save_model(decoder, directory / "openvino_detokenizer.xml")


def _spell_out(detokenizer: Model, never_text: Set[int]) -> None:
    """Replace each vocabulary entry by its token's bytes: SentencePiece has pieces there, special tokens their names.

    Byte-level vocabularies are bytes already. Tokens of `never_text` get no bytes, so no grammar generates them.
    """
    (vocabulary,) = (node for node in detokenizer.get_ordered_ops() if node.get_type_name() == "VocabDecoder")
    has_pieces = any(node.get_type_name() == "ByteFallback" for node in detokenizer.get_ordered_ops())
    tokens = [
        b"" if token_id in never_text else _piece_bytes(token) if has_pieces else token
        for token_id, token in enumerate(_tokens(vocabulary))
    ]
    ends = np.cumsum([len(token) for token in tokens], dtype=np.int32)
    begins = np.concatenate([np.zeros(1, np.int32), ends[:-1]])
    text = np.frombuffer(b"".join(tokens), np.uint8)
    for place, values in enumerate((begins, ends, text), start=1):
        vocabulary.input(place).replace_source_output(op.Constant(values).output(0))


def _tokens(vocabulary: Node) -> list[bytes]:
    """VocabDecoder's inputs 1 to 3: where each token begins and ends, i32 [vocab], and the characters, u8."""
    begins, ends, text = (_values(vocabulary, place) for place in (1, 2, 3))
    return [text[begin:end].tobytes() for begin, end in zip(begins, ends, strict=True)]


def _values(node: Node, place: int) -> NDArray[Any]:
    constant = node.input_value(place).get_node()
    data: NDArray[Any] = constant.data
    return data


def _piece_bytes(piece: bytes) -> bytes:
    """`<0x0A>` is a byte, U+2581 a space."""
    if byte := _BYTE_PIECE.fullmatch(piece):
        return bytes.fromhex(byte[1].decode())
    return piece.replace("▁".encode(), b" ")
