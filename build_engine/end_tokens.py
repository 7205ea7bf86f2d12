"""The tokens that end an answer, decided once: the build writes them into the manifest, where the frontend reads them.

The engine and its guided decoding must agree on one id. TensorRT-LLM ends *all* active requests when an answer goes on
after its grammar has ended, which is what happens where the two watch for different ids.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .checkpoint_files import read_json_object
from .errors import CheckpointError

_TOKENIZER_CONFIG, _GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTokens:
    """`end_id` is the one that the engine and its grammars watch for; the frontend watches for the others.

    `pad_id` is the tokenizer's padding token, else `end_id`.
    """

    end_id: int
    other_end_ids: tuple[int, ...]
    pad_id: int

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {"end_id": self.end_id, "other_end_ids": list(self.other_end_ids), "pad_id": self.pad_id}


def read_end_tokens(checkpoint: Path, tokenizer: Tokenizer, vocab_size: int) -> EndTokens:
    """The first `eos_token_id` of generation_config.json, then the others, then the tokenizer's `eos_token`.

    So does vLLM. Raises CheckpointError if the checkpoint names none, or an id that the model does not have.
    """
    config = read_json_object(checkpoint / _TOKENIZER_CONFIG)
    own = _token_id(config, "eos_token", tokenizer)
    end_ids = list(dict.fromkeys([*_generation_eos(checkpoint), *([] if own is None else [own])]))
    if not end_ids:
        raise CheckpointError(
            f"{_TOKENIZER_CONFIG}: eos_token is {config.get('eos_token')!r}; accepted: a token of tokenizer.json,"
            f" or an eos_token_id in {_GENERATION_CONFIG}"
        )
    if wrong := [end_id for end_id in end_ids if not 0 <= end_id < vocab_size]:
        raise CheckpointError(f"{_GENERATION_CONFIG}: eos_token_id has {wrong[0]}; accepted: 0 to {vocab_size - 1}")
    pad_id = _token_id(config, "pad_token", tokenizer)
    return EndTokens(
        end_id=end_ids[0], other_end_ids=tuple(end_ids[1:]), pad_id=end_ids[0] if pad_id is None else pad_id
    )


def _generation_eos(checkpoint: Path) -> list[int]:
    """Empty where there is no file or no id in it: a checkpoint need not have either."""
    file = checkpoint / _GENERATION_CONFIG
    eos = read_json_object(file).get("eos_token_id") if os.path.lexists(file) else None
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(isinstance(end_id, int) for end_id in ids):
        raise CheckpointError(f"{_GENERATION_CONFIG}: eos_token_id is {eos!r}; accepted: a token id, or a list of them")
    return ids


def _token_id(config: dict[str, Any], name: str, tokenizer: Tokenizer) -> int | None:
    """Hugging Face writes a token as a string or as an object that describes it."""
    token = config.get(name)
    content = token.get("content") if isinstance(token, dict) else token
    return tokenizer.token_to_id(content) if isinstance(content, str) else None
