"""The engine's log probabilities as tokens with their bytes, those of alternatives and of the prompt too."""

from collections.abc import Iterator, Mapping, Sequence

from frontend.generation import LogProbs, Token


def to_tokens(
    token_ids: Sequence[int], log_probs: LogProbs, token_bytes: Mapping[int, bytes], names: Mapping[int, bytes]
) -> Iterator[Token]:
    """The tokens that `log_probs` are of. `token_bytes` are theirs, and `names` those of the alternatives."""
    num_top = len(log_probs.top_token_ids) // max(len(log_probs.log_probs), 1)
    for place, (token_id, log_prob, rank) in enumerate(
        zip(token_ids, log_probs.log_probs, log_probs.ranks, strict=False)
    ):
        alternatives = slice(place * num_top, (place + 1) * num_top)
        top = [
            Token(other, names.get(other, b""), its_log_prob)
            for other, its_log_prob in zip(
                log_probs.top_token_ids[alternatives], log_probs.top_log_probs[alternatives], strict=True
            )
        ]
        yield Token(token_id, token_bytes.get(token_id, b""), log_prob, rank, top)


class PromptTokens:
    """The tokens of a prompt, collected until its answer begins. The first has no log probability."""

    def __init__(self, token_ids: Sequence[int], names: Mapping[int, bytes]) -> None:
        self._token_ids = token_ids
        self._names = names
        self._tokens = [Token(token_ids[0], names.get(token_ids[0], b""), None)]

    def feed(self, log_probs: LogProbs) -> None:
        """Log probabilities of the next tokens."""
        self._tokens += to_tokens(self._token_ids[len(self._tokens) :], log_probs, self._names, self._names)

    def take(self) -> Sequence[Token]:
        """All tokens, the first time."""
        tokens, self._tokens = self._tokens, []
        return tokens
