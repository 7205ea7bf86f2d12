"""Write the vocabulary in the form that TensorRT-LLM's guided decoding reads, beside the engine."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from build_engine.checkpoint import TOKENIZER, Checkpoint
from build_engine.errors import CheckpointError

XGRAMMAR_TOKENIZER_INFO = "xgrammar_tokenizer_info.json"
"""Its path is `xgrammar_tokenizer_info_path` in config.pbtxt."""


def write_tokenizer_info(checkpoint: Checkpoint, directory: Path) -> None:
    """Write xgrammar_tokenizer_info.json into `directory`. Raises CheckpointError as `tokenizer_info` does."""
    tokenizer = Tokenizer.from_file(str(checkpoint.path / TOKENIZER))
    (directory / XGRAMMAR_TOKENIZER_INFO).write_text(json.dumps(tokenizer_info(checkpoint, tokenizer)))


def tokenizer_info(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, Any]:
    """encoded_vocab in the order of ids, tokenizer_str, stop_token_ids.

    Source of these keys: examples/generate_xgrammar_tokenizer_info.py of TensorRT-LLM 1.2. Two things differ from it,
    on purpose. The one stop token is the `end_id` that requests send: with another, the engine would ask the grammar
    for more after its end. And special tokens have no text, so that no grammar generates them: xgrammar would take
    `<|im_end|>` in a JSON string for eleven characters, where the frontend sees the end of the answer.

    Raises CheckpointError for ids with gaps, which would shift every later token's mask, or too many of them.
    """
    by_id = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda entry: entry[1])
    for position, (token, token_id) in enumerate(by_id):
        if token_id != position:
            raise CheckpointError(f"{TOKENIZER}: token {token!r} has id {token_id}; accepted: ids without gaps")
    if len(by_id) > checkpoint.config.vocab_size:
        raise CheckpointError(
            f"{TOKENIZER}: {len(by_id)} tokens; accepted: at most the model's {checkpoint.config.vocab_size}"
        )
    end_tokens = checkpoint.end_tokens
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    never_text = {*special, end_tokens.end_id, *end_tokens.other_end_ids}
    return {
        "encoded_vocab": ["" if token_id in never_text else token for token, token_id in by_id],
        "tokenizer_str": tokenizer.to_str(),
        "stop_token_ids": [end_tokens.end_id],
    }
