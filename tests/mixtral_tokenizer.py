"""Mixtral-8x7B-Instruct-v0.1's own tokenizer files, rebuilt from the SentencePiece model that mistral-common ships.

The checkpoint's tokenizer.json is a BPE of these pieces with byte fallback and without a pre-tokenizer; tests
compare its ids with mistral-common and with a log of the server that this product replaces.
"""

import json
from functools import cache
from pathlib import Path

import mistral_common
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


def write_mixtral_tokenizer(directory: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json as the checkpoint has them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(_tokenizer_json())
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))


@cache
def _tokenizer_json() -> str:
    pieces = SentencePieceProcessor(str(Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"))
    vocabulary = {pieces.IdToPiece(token_id): token_id for token_id in range(pieces.GetPieceSize())}
    tokenizer = Tokenizer(
        BPE(vocabulary, _merges(pieces, vocabulary), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer.to_str()


def _merges(pieces: SentencePieceProcessor, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that forms a piece, the piece with the best SentencePiece score first."""
    merges = []
    for piece, token_id in vocabulary.items():
        halves = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [
            (vocabulary[left], vocabulary[right], left, right)
            for left, right in halves
            if {left, right} <= vocabulary.keys()
        ]
        merges += [(-pieces.GetScore(token_id), token_id, *merge) for merge in sorted(known)]
    return [(left, right) for _, _, _, _, left, right in sorted(merges, key=lambda merge: merge[0])]
