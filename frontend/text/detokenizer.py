"""Token ids to text, as they come. Incomplete characters and possible stop strings are held back until decided.

Works on a table from token id to bytes, so that each token costs the same. Not here: I/O, and the tokenizer itself.
"""

import codecs
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat

from frontend.generation import (
    Delta,
    Ending,
    GenerationRequest,
    Outcome,
    Token,
    TokenChunk,
    Usage,
    finish_reason,
)

from .token_log_probs import PromptTokens, to_tokens


class TextDecoder:
    """Bytes of tokens to text; a character appears when its last byte does.

    The text does not depend on how the ids are divided among calls of `feed`. Bytes that are not UTF-8 become U+FFFD,
    as many as Unicode recommends. An id without an entry in the table (special tokens, padding) has no text.
    """

    def __init__(self, token_bytes: Mapping[int, bytes]) -> None:
        self._token_bytes = token_bytes
        self._held = b""

    def feed(self, token_ids: Iterable[int]) -> str:
        """The characters that are complete with these tokens."""
        data = self._held + b"".join([self._token_bytes.get(token_id, b"") for token_id in token_ids])
        # Like codecs' incremental decoder, but without its Python call for every token.
        text, num_decoded = codecs.utf_8_decode(data, "replace")
        self._held = data[num_decoded:]
        return text

    def finish(self) -> str:
        """U+FFFD for a character that was never completed."""
        return self._held.decode(errors="replace")


class StopStrings:
    """Cuts text at the stop string that is completed first; holds back text that may be the beginning of one."""

    def __init__(self, stop: Sequence[str], *, include: bool = False) -> None:
        self._stop = stop
        self._include = include
        self._beginnings = {string[:length] for string in stop for length in range(1, len(string))}
        self._longest = max(map(len, self._beginnings), default=0)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """The text that is certainly before any stop string; with `include`, also the stop string that was found."""
        if self.matched is not None:
            return ""
        held = self._held + text
        # First completed, not first begun: one token at a time must give what the complete text at once gives.
        if found := [(at + len(string), at, string) for string in self._stop if (at := held.find(string)) >= 0]:
            behind, at, self.matched = min(found)
            return held[: behind if self._include else at]
        lengths = range(min(self._longest, len(held)), 0, -1)
        keep = next((length for length in lengths if held[-length:] in self._beginnings), 0)
        ready = len(held) - keep
        self._held = held[ready:]
        return held[:ready]

    def finish(self) -> str:
        """The text that was held back and did not become a stop string."""
        return "" if self.matched is not None else self._held


class PendingLogprobs:
    """Tokens and their log probabilities, held back until the text that they begin in is delivered.

    Text is held back while it may be a stop string, and dropped if it is one. The log probabilities of its tokens must
    then be held back and dropped too.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Token]] = deque()

    def append(self, token: Token, *, start: int) -> None:
        """`start` is the number of complete characters of the answer before this token."""
        self._waiting.append((start, token))

    def release(self, num_characters: int, *, complete: bool) -> list[Token]:
        """The tokens that begin within the first `num_characters`; if these are the `complete` answer, all tokens."""
        released = []
        while self._waiting:
            start, _ = self._waiting[0]
            if not (start < num_characters or (complete and start == num_characters)):
                break
            released.append(self._waiting.popleft()[1])
        return released


class AnswerDecoder:
    """Decodes one answer: takes the engine's tokens, returns its text, and at the end why it ended and its usage.

    `with_tokens`: each Delta has the tokens beside the text. `names` are the bytes of all tokens, those without text
    too: alternatives and the prompt are written with them.
    """

    def __init__(
        self,
        request: GenerationRequest,
        token_bytes: Mapping[int, bytes],
        *,
        with_tokens: bool,
        names: Mapping[int, bytes] | None = None,
    ) -> None:
        params = request.sampling_params
        self._num_prompt_tokens = len(request.prompt_token_ids)
        self._max_tokens = params.max_tokens
        self._min_tokens = params.min_tokens or 0
        self._stop_token_ids = params.stop_token_ids
        self._end_ids = params.stop_token_ids
        if not params.ignore_eos:
            self._end_ids |= request.end_tokens.other_end_ids
        self._include_stop = params.include_stop_str_in_output
        self._token_bytes = token_bytes
        self._names = token_bytes if names is None else names
        self._prompt = None if params.prompt_logprobs is None else PromptTokens(request.prompt_token_ids, self._names)
        self._text = TextDecoder(token_bytes)
        self._stop = StopStrings(params.stop, include=params.include_stop_str_in_output)
        self._pending = PendingLogprobs() if with_tokens else None
        self._one_by_one = bool(params.stop or self._end_ids or with_tokens)
        self._num_cached_tokens: int | None = None
        self._num_completion_tokens = 0
        self._num_decoded = 0
        self._num_released = 0
        self._end_id: int | None = None

    @property
    def is_complete(self) -> bool:
        """True once a stop string or end token was found that the engine does not stop at: then cancel its request."""
        return self._end_id is not None or self._stop.matched is not None

    def feed(self, chunk: TokenChunk) -> Delta:
        """The text and tokens to deliver now. Tokens after the end of the answer are dropped."""
        if chunk.num_cached_tokens is not None:
            # Engines count blocks. The last one may be partly used, and the last token is never taken from the cache.
            self._num_cached_tokens = min(chunk.num_cached_tokens, self._num_prompt_tokens - 1)
        if not self._one_by_one:
            self._num_completion_tokens += len(chunk.token_ids)
            return Delta(self._text.feed(chunk.token_ids), (), self._num_completion_tokens)
        if chunk.prompt is not None and self._prompt is not None:
            self._prompt.feed(chunk.prompt)
        if chunk.top is not None:
            tokens = to_tokens(chunk.token_ids, chunk.top, self._token_bytes, self._names)
            text = "".join([self._feed_one(token.token_id, token.log_prob, token.rank, token.top) for token in tokens])
        else:
            log_probs = chain(chunk.log_probs, repeat(None))
            text = "".join([self._feed_one(*token) for token in zip(chunk.token_ids, log_probs, strict=False)])
        return self._delta(text, complete=False, prompt=self._prompt_tokens() if chunk.token_ids else ())

    def finish(self) -> Delta:
        """The rest that was held back, once no token will follow."""
        text = self._stop.feed(self._text.finish()) + self._stop.finish()
        return self._delta(text, complete=self._stop.matched is None, prompt=self._prompt_tokens())

    def _prompt_tokens(self) -> Sequence[Token]:
        """The tokens of the prompt for the first Delta, all of whose log probabilities come before the first token."""
        return () if self._prompt is None else self._prompt.take()

    def _delta(self, text: str, *, complete: bool, prompt: Sequence[Token]) -> Delta:
        if self._pending is None:
            return Delta(text, (), self._num_completion_tokens)
        self._num_released += len(text)
        tokens = self._pending.release(self._num_released, complete=complete)
        return Delta(text, tokens, self._num_completion_tokens, prompt)

    def _feed_one(
        self, token_id: int, log_prob: float | None, rank: int | None = None, top: Sequence[Token] = ()
    ) -> str:
        """Decodes a single token, so that the count ends with the token that completes a stop string."""
        if self.is_complete:
            return ""
        is_end = token_id in self._end_ids and self._num_completion_tokens >= self._min_tokens
        if is_end:
            self._end_id = token_id
            if not self._include_stop:
                return ""
        self._num_completion_tokens += 1
        if self._pending is not None:
            token = Token(token_id, self._token_bytes.get(token_id, b""), log_prob, rank, top)
            self._pending.append(token, start=self._num_decoded)
        text = self._text.feed((token_id,))
        self._num_decoded += len(text)
        return text if self._num_completion_tokens < self._min_tokens else self._stop.feed(text)

    @property
    def outcome(self) -> Outcome:
        """Why the answer ended and its usage. The reason is meaningful only once it has ended."""
        reason = finish_reason(
            stop_matched=self.is_complete,
            num_completion_tokens=self._num_completion_tokens,
            max_tokens=self._max_tokens,
        )
        usage = Usage(
            num_prompt_tokens=self._num_prompt_tokens,
            num_completion_tokens=self._num_completion_tokens,
            num_cached_tokens=self._num_cached_tokens,
        )
        return Outcome(ending=Ending(finish_reason=reason, stop_reason=self._stop_reason), usage=usage)

    @property
    def _stop_reason(self) -> str | int | None:
        return self._end_id if self._end_id in self._stop_token_ids else self._stop.matched
