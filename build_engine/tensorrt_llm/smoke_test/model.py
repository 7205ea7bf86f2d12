"""The model that is tested: its requests, and the checks that every answer must pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tokenizers import Tokenizer

from build_engine.checkpoint import TOKENIZER, Checkpoint
from build_engine.end_tokens import EndTokens
from build_engine.errors import EngineError
from build_engine.model_config import ServingConfig

from .client import Answer, Client

NUM_TOKENS = 64
"""Tokens that an answer is asked for. Enough for two sentences; a second or two on a GPU."""
_ROUNDING = 0.2
"""Largest difference between two log probabilities of the same context that rounding explains.

The second prompt comes from the KV cache, or runs in a batch with another. Other kernels then add float16 numbers in
another order, so two tokens that are nearly as likely may change places. Those of a damaged engine differ by more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that Triton has loaded, with the tokenizer of its checkpoint.

    `optional` are the inputs that config.pbtxt declares optional. `gathers_logits`: the engine was built to return its
    tokens' logits.
    """

    client: Client
    tokenizer: Tokenizer
    vocab_size: int
    end_tokens: EndTokens
    max_seq_len: int
    optional: frozenset[str]
    gathers_logits: bool

    @classmethod
    def of(cls, config: ServingConfig, checkpoint: Checkpoint, client: Client) -> Self:
        """The model that Triton has loaded with this config, for an engine of this checkpoint."""
        return cls(
            client=client,
            tokenizer=Tokenizer.from_file(str(checkpoint.path / TOKENIZER)),
            vocab_size=checkpoint.config.vocab_size,
            end_tokens=checkpoint.end_tokens,
            max_seq_len=config.limits.max_seq_len,
            optional=frozenset(tensor.name for tensor in config.parsed.input if tensor.optional),
            gathers_logits=config.limits.gather_generation_logits,
        )

    def encode(self, prompt: str) -> list[int]:
        """Token ids, with the token that begins a text."""
        ids: list[int] = self.tokenizer.encode(prompt).ids
        return ids

    def decode(self, token_ids: list[int]) -> str:
        """The text of an answer."""
        return str(self.tokenizer.decode(token_ids))

    def request(self, prompt: str, num_tokens: int = NUM_TOKENS, **inputs: Any) -> dict[str, Any]:
        """A greedy, streaming request that goes on after an end token, but for what `inputs` say."""
        prompt_token_ids = self.encode(prompt)
        return {
            "input_ids": prompt_token_ids,
            "input_lengths": len(prompt_token_ids),
            "request_output_len": num_tokens,
            "end_id": -1,
            "pad_id": self.end_tokens.pad_id,
            "runtime_top_k": 1,
            "streaming": True,
            **inputs,
        }

    def generate(self, request: Mapping[str, Any]) -> Answer:
        """The answer, with tokens of the vocabulary and plausible log probabilities. Raises EngineError."""
        return self.checked(self.client.generate(request))

    def checked(self, answer: Answer) -> Answer:
        """The same answer. Raises EngineError for a token outside the vocabulary, or a log probability that is none."""
        for token_id in answer.token_ids:
            if not 0 <= token_id < self.vocab_size:
                raise EngineError(f"the engine generated token {token_id}; accepted: 0 to {self.vocab_size - 1}")
        for log_prob in answer.log_probs:
            if not (math.isfinite(log_prob) and log_prob <= 1e-3):
                raise EngineError(f"the engine gave a log probability of {log_prob}; accepted: finite, at most zero")
        return answer


def check_complete(answer: Answer, num_tokens: int = NUM_TOKENS) -> None:
    """Raises EngineError for another number of tokens than was asked for."""
    if len(answer.token_ids) != num_tokens:
        raise EngineError(f"the engine generated {len(answer.token_ids)} tokens; accepted: the {num_tokens} asked for")


def tokens_alike(first: Answer, second: Answer) -> int:
    """How many tokens two greedy answers of NUM_TOKENS share, from the start.

    Raises EngineError for another number of tokens or log probabilities, and if rounding does not explain where the
    answers differ.

    Both answers take the token with the greatest log probability. If rounding moves each log probability by at most
    _ROUNDING, the greatest moves by at most that, even where another token is then the greatest.
    """
    for answer in (first, second):
        check_complete(answer)
        if len(answer.log_probs) != NUM_TOKENS:
            raise EngineError(f"the engine gave {len(answer.log_probs)} log probabilities for {NUM_TOKENS} tokens")
    pairs = zip(first.token_ids, second.token_ids, first.log_probs, second.log_probs, strict=True)
    for position, (ours, theirs, log_prob, other) in enumerate(pairs):
        if abs(log_prob - other) > _ROUNDING:
            raise EngineError(
                f"the engine answers a greedy request in two ways: token {position} is {ours} and {theirs},"
                f" with log probabilities {log_prob} and {other}"
            )
        if ours != theirs:
            return position
    return len(first.token_ids)
