"""Token ids to text, piece by piece: broken characters and possible stop strings are held back until they are decided.

Refuses I/O and knows no tokenizer: it works on a table from token id to bytes, so each token costs the same.
"""

import codecs
from collections.abc import Iterable, Mapping, Sequence

from .generation import Ending, GenerationRequest, Usage, finish_reason


class TextDecoder:
    """Bytes of tokens to text; a character appears when its last byte does.

    The text is the same however the ids are cut, and bytes that are no UTF-8 become U+FFFD one by one as Unicode
    recommends. An id that is not in the table (special tokens, padding of the vocabulary) has no text.
    """

    def __init__(self, token_bytes: Mapping[int, bytes]) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens complete."""
        return self._utf8.decode(b"".join([self._token_bytes.get(token_id, b"") for token_id in token_ids]))

    def finish(self) -> str:
        """U+FFFD for a character that was never completed."""
        return self._utf8.decode(b"", final=True)


class StopStrings:
    """Cut text at the stop string that is completed first; hold back whatever may still become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._beginnings = {string[:length] for string in stop for length in range(1, len(string))}
        self._longest = max(map(len, self._beginnings), default=0)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """The text that is certain to be in front of any stop string."""
        if self.matched is not None:
            return ""
        held = self._held + text
        # First completed, not first begun: one token at a time must give what the whole text at once gives.
        if found := [(at + len(string), at, string) for string in self._stop if (at := held.find(string)) >= 0]:
            _, at, self.matched = min(found)
            return held[:at]
        lengths = range(min(self._longest, len(held)), 0, -1)
        keep = next((length for length in lengths if held[-length:] in self._beginnings), 0)
        ready = len(held) - keep
        self._held = held[ready:]
        return held[:ready]

    def finish(self) -> str:
        """What was held back and never became a stop string."""
        return "" if self.matched is not None else self._held


class AnswerDecoder:
    """One answer: feed it the engine's tokens, take its text, and ask it at the end why it ended and what it cost."""

    def __init__(self, request: GenerationRequest, token_bytes: Mapping[int, bytes]) -> None:
        params = request.sampling_params
        self._num_prompt_tokens = len(request.prompt_token_ids)
        self._max_tokens = params.max_tokens
        self._min_tokens = params.min_tokens or 0
        self._end_ids = frozenset[int]() if params.ignore_eos else request.end_tokens.other_end_ids
        self._watches = bool(params.stop or self._end_ids)
        self._text = TextDecoder(token_bytes)
        self._stop = StopStrings(params.stop)
        self._num_completion_tokens = 0
        self._end_id_seen = False

    @property
    def is_complete(self) -> bool:
        """True once a stop string or an end token that the engine does not watch for was seen: cancel the engine."""
        return self._end_id_seen or self._stop.matched is not None

    def feed(self, token_ids: Sequence[int]) -> str:
        """The text to hand on now; tokens behind the end are dropped."""
        if not self._watches:
            self._num_completion_tokens += len(token_ids)
            return self._text.feed(token_ids)
        return "".join([self._feed_one(token_id) for token_id in token_ids])

    def finish(self) -> str:
        """The text that was held back, now that no token will follow."""
        return self._stop.feed(self._text.finish()) + self._stop.finish()

    def _feed_one(self, token_id: int) -> str:
        """One token at a time, so that the count ends with the token that completes a stop string."""
        if self.is_complete:
            return ""
        if token_id in self._end_ids and self._num_completion_tokens >= self._min_tokens:
            self._end_id_seen = True
            return ""
        self._num_completion_tokens += 1
        text = self._text.feed((token_id,))
        return text if self._num_completion_tokens < self._min_tokens else self._stop.feed(text)

    @property
    def ending(self) -> Ending:
        """Why the answer is over; meaningful once it is."""
        reason = finish_reason(
            stop_matched=self.is_complete,
            num_completion_tokens=self._num_completion_tokens,
            max_tokens=self._max_tokens,
        )
        return Ending(finish_reason=reason, stop_reason=self._stop.matched)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(num_prompt_tokens=self._num_prompt_tokens, num_completion_tokens=self._num_completion_tokens)
