"""Write the vocabulary in the form that TensorRT-LLM's guided decoding reads, beside the engine."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from build_engine.checkpoint import Checkpoint
from build_engine.errors import CheckpointError

XGRAMMAR_TOKENIZER_INFO = "xgrammar_tokenizer_info.json"


def write_tokenizer_info(checkpoint: Checkpoint, directory: Path) -> None:
    """Write xgrammar_tokenizer_info.json: encoded_vocab in the order of ids, tokenizer_str, stop_token_ids.

    Source of these keys: examples/generate_xgrammar_tokenizer_info.py of TensorRT-LLM 1.2. Raises CheckpointError
    for ids with gaps, which would shift every later token's mask.
    """
    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    by_id = sorted(vocabulary.items(), key=lambda entry: entry[1])
    for position, (token, token_id) in enumerate(by_id):
        if token_id != position:
            raise CheckpointError(f"tokenizer.json: token {token!r} has id {token_id}; accepted: ids without gaps")
    if len(by_id) > checkpoint.config.vocab_size:
        raise CheckpointError(
            f"tokenizer.json: {len(by_id)} tokens; accepted: at most the model's {checkpoint.config.vocab_size}"
        )
    info = {
        "encoded_vocab": [token for token, _ in by_id],
        "tokenizer_str": tokenizer.to_str(),
        "stop_token_ids": [_eos_token_id(checkpoint.path, vocabulary)],
    }
    (directory / XGRAMMAR_TOKENIZER_INFO).write_text(json.dumps(info))


def _eos_token_id(checkpoint: Path, vocabulary: dict[str, int]) -> int:
    """The id of `eos_token` in tokenizer_config.json, which may be a string or an object."""
    eos = json.loads((checkpoint / "tokenizer_config.json").read_bytes()).get("eos_token")
    token = eos.get("content") if isinstance(eos, dict) else eos
    if token not in vocabulary:
        raise CheckpointError(f"tokenizer_config.json: eos_token is {token!r}; accepted: a token of tokenizer.json")
    return vocabulary[token]
