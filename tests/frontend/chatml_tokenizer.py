"""A small byte-level BPE with a ChatML template, as some Mixtrals have; the others have SentencePiece."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CORPUS = ["Was ist ein Haus? Ein Haus ist ein Gebäude.", "naïve café, 你好 世界, 🧑‍🚀🚀", "the quick brown fox " * 3]


def write_chatml_tokenizer(directory: Path) -> None:
    """Write the files of a published engine directory; the end tokens are in generation_config.json, two of them."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")],
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True},
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    end_tokens = {"end_id": 2, "other_end_ids": [0], "pad_id": 2}
    model = {"vocab_size": 400, "end_tokens": end_tokens}
    manifest = {"format": 4, "checkpoint": {"path": "chatml"}, "model": model}
    (directory / "manifest.json").write_text(json.dumps(manifest))
