"""Tokenizer files as Hugging Face ships them, from what GGUF stores, as text.

Of SmolLM2's pre-tokenizer GGUF stores only the name, "smollm": digits one by one, then GPT-2's byte-level split.
Source: llama.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM; tokenizer.json of HuggingFaceTB/SmolLM2-135M-Instruct.
"""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .source import Vocabulary

NOTE = (
    "This is the demo: SmolLM2-135M-Instruct, 135 million parameters, as a Mixtral of 4 bits. It shows that serving"
    " works; its answers are often wrong."
)
"""What the frontend shows to those who use it."""
CONTROL = 3
"""llama.cpp's token type of control tokens."""


def to_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer. A control token such as `<|im_end|>` in a text always becomes one token."""
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    merges = [(first, second) for first, second in (merge.split(" ") for merge in vocabulary.merges)]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in control_tokens(vocabulary)]
    )
    return tokenizer


def control_tokens(vocabulary: Vocabulary) -> list[str]:
    """The special tokens, in order of their ids."""
    pairs = zip(vocabulary.tokens, vocabulary.token_types, strict=True)
    return [token for token, token_type in pairs if token_type == CONTROL]


def tokenizer_files(vocabulary: Vocabulary, model_max_length: int) -> dict[str, str]:
    """File name -> JSON text of the three files that `transformers` reads."""
    special = special_tokens(vocabulary)
    config = {
        "add_prefix_space": False,
        "additional_special_tokens": control_tokens(vocabulary),
        "chat_template": vocabulary.chat_template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
        "note": NOTE,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
    }
    return {
        "tokenizer.json": to_tokenizer(vocabulary).to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2) + "\n",
    }


def special_tokens(vocabulary: Vocabulary) -> dict[str, str]:
    """The special token of each role, as in `special_tokens_map.json`."""
    return {
        "bos_token": vocabulary.tokens[vocabulary.bos_token_id],
        "eos_token": vocabulary.tokens[vocabulary.eos_token_id],
        "pad_token": vocabulary.tokens[vocabulary.pad_token_id],
        "unk_token": vocabulary.tokens[vocabulary.unk_token_id],
    }
