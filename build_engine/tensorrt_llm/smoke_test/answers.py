"""Three fixed prompts, and what a working Mixtral-8x7B-Instruct answers to them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from build_engine.checkpoint import Checkpoint
from build_engine.errors import EngineError

from .client import Answer
from .model import NUM_TOKENS, Model

_LOG_PROB_FLOOR = -1.5
"""Lowest mean log probability of a greedy answer. An instruct model has about -0.3; tokens drawn at random, all as
likely, have -10.4."""
_MIN_SHARE_OF_WORDS = 0.6
"""Lowest share of an answer's letters that are in English words of the vocabulary. Prose has about 0.95; tokens drawn
at random have 0.3, and at most 0.6 in a thousand answers."""
_MIN_SHARE_OF_DISTINCT = 0.3
"""Lowest share of distinct tokens in an answer. Prose of 64 tokens has about 0.7, a repeated sentence 0.2."""
_MIN_TOKENS_TO_COUNT_DISTINCT = 24
"""The shortest answer in which distinct tokens are counted."""
_EXCERPT_LENGTH = 60
_INSTRUCT_MARK = "[INST]"

_KNOWN_SIZES = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "rope_theta": 1e6,
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, its subject for the log, and words of which a working model writes at least one (lower case)."""

    subject: str
    text: str
    expected: tuple[str, ...]


HOUSE = Prompt("a house", "[INST] What is a house? [/INST]", ("house", "home", "building"))
_VOYAGE = (
    "[INST] The ship Diana left the harbour before sunrise with a load of timber. The sea was calm for the first three"
    " days. On the fourth day the wind turned, and the crew took in the sails. The cook made soup, and the captain read"
    " old letters in his cabin. Nobody fell ill. On the ninth day they saw an island that was on none of their maps,"
    " with white birds on the cliffs. They took water from a spring there and went on. Two weeks later they reached the"
    " port, sold the timber at a good price, and bought wool for the journey home. What was the name of the ship?"
    " [/INST]"
)
PROMPTS = (
    Prompt("the capital of France", "[INST] What is the capital of France? [/INST]", ("paris",)),
    HOUSE,
    Prompt("a word 130 tokens earlier", _VOYAGE, ("diana",)),
)
"""The third needs positions that are right over a distance: with another rotary base, short prompts may still work."""


def is_known(checkpoint: Checkpoint) -> bool:
    """Whether the answers to PROMPTS are known: a Mixtral-8x7B with Mistral's instruct template.

    casperhansen/mixtral-instruct-awq is one. It is recognised by its sizes and its template, not by its directory.
    """
    sizes = all(getattr(checkpoint.config, name) == size for name, size in _KNOWN_SIZES.items())
    templates = map(checkpoint.file, ("tokenizer_config.json", "chat_template.jinja"))
    return sizes and any(
        _INSTRUCT_MARK in file.read_text(encoding="utf-8", errors="replace") for file in templates if file.is_file()
    )


def check_answers(model: Model, judged: bool) -> Iterator[str]:
    """Lines for the log. Raises EngineError for an answer that is no answer; if not `judged`, any text is one."""
    for prompt in PROMPTS:
        request = model.request(prompt.text, end_id=model.end_tokens.end_id, return_log_probs=True)
        answer = model.generate(request)
        text = model.decode(answer.token_ids)
        mean = _mean_log_prob(answer)
        yield f"{prompt.subject}: {_excerpt(text)}, {len(answer.token_ids)} tokens, mean log probability {mean:.2f}"
        problem = find_problem(prompt, text, answer.token_ids, mean, model.tokenizer.get_vocab()) if judged else None
        if problem:
            raise EngineError(f"the answer about {prompt.subject} {problem}")
    if not judged:
        yield "answers are not judged: the right ones are known for Mixtral-8x7B-Instruct only"


def longest_request(model: Model) -> int:
    """Prompt and answer of the longest prompt, in tokens."""
    return max(len(model.encode(prompt.text)) for prompt in PROMPTS) + NUM_TOKENS


def find_problem(
    prompt: Prompt, text: str, token_ids: Sequence[int], mean_log_prob: float, vocabulary: dict[str, int]
) -> str | None:
    """What shows that a broken engine wrote this answer, or None. `vocabulary` is that of a SentencePiece tokenizer."""
    if not text.strip():
        return "is empty"
    if mean_log_prob < _LOG_PROB_FLOOR:
        return f"has a mean log probability of {mean_log_prob:.2f}; accepted: at least {_LOG_PROB_FLOOR}"
    if (share := _share_of_words(text, vocabulary)) < _MIN_SHARE_OF_WORDS:
        return (
            f"is not words: {_excerpt(text)}, {share:.0%} of its letters; accepted: at least {_MIN_SHARE_OF_WORDS:.0%}"
        )
    if len(token_ids) >= _MIN_TOKENS_TO_COUNT_DISTINCT:
        distinct = len(set(token_ids)) / len(token_ids)
        if distinct < _MIN_SHARE_OF_DISTINCT:
            return (
                f"repeats itself: {_excerpt(text)}, {distinct:.0%} of its tokens are distinct;"
                f" accepted: at least {_MIN_SHARE_OF_DISTINCT:.0%}"
            )
    if not any(word in text.lower() for word in prompt.expected):
        return f"is wrong: {_excerpt(text)}; accepted: one with {' or '.join(map(repr, prompt.expected))}"
    return None


def _share_of_words(text: str, vocabulary: dict[str, int]) -> float:
    """The share of letters that are in English words which the vocabulary has whole.

    Characters that cannot be read count as letters.
    """
    letters = sum(character.isalpha() or not (character.isprintable() or character.isspace()) for character in text)
    letters += text.count("\N{REPLACEMENT CHARACTER}")
    words = (word for word in re.findall(r"[^\W\d_]+", text) if word.isascii() and f"▁{word}" in vocabulary)
    return sum(map(len, words)) / max(letters, 1)


def _mean_log_prob(answer: Answer) -> float:
    """Over the tokens of the answer; NaN for an answer without tokens."""
    log_probs = answer.log_probs[: len(answer.token_ids)]
    if len(log_probs) < len(answer.token_ids):
        raise EngineError(f"the engine gave {len(log_probs)} log probabilities for {len(answer.token_ids)} tokens")
    return fmean(log_probs) if log_probs else float("nan")


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= _EXCERPT_LENGTH else text[:_EXCERPT_LENGTH] + "...")
