"""Compute log probabilities in a process of its own: python3 scorer.py ENGINE_DIR MAX_TOKENS.

It has the lowest priority, so that the batch goes first, and an interpreter that no step of the batch stops. Reads
commands from stdin and writes pieces to stdout, both pickled (scorer_messages.py). MAX_TOKENS bounds the tokens of the
sequences that are open at a time, and so the memory of their keys and values; others wait, in order of arrival.
"""

import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import numpy as np
from log_probs import LogProbs, to_log_probs
from numpy.typing import NDArray
from scorer_messages import Command, Drop, Open, Piece

PIECE_TOKENS = 128
"""Most tokens of one inference: what the other sequences wait for."""
_LOWEST_PRIORITY = 19


class TokenSequence(Protocol):
    """See forward.py."""

    def feed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """The logits after each of the tokens, which are appended."""


class Forward(Protocol):
    """See forward.py."""

    def new_sequence(self) -> TokenSequence:
        """A sequence without tokens."""

    def infer_once(self, sequences: Sequence[Sequence[int]]) -> Sequence[NDArray[np.float32]]:
        """The logits after each token of whole sequences, which are not kept."""


class ScoredSequence:
    """A prompt and its answer. The logits after a token give the log probability of the next one.

    So those of the last token are kept until the next one is known.
    """

    def __init__(self, opened: Open) -> None:
        self.key, self.reserved_tokens = opened.key, opened.reserved_tokens
        self._num_prompt_top, self._num_top = opened.num_prompt_top, opened.num_top
        self._num_prompt_tokens = opened.prompt_token_ids.size
        self._token_ids: list[int] = opened.prompt_token_ids.tolist()
        self._num_fed = 0
        self._num_done = 1  # the first token has no log probability
        self._next_logits: NDArray[np.float32] | None = None
        self._is_complete = False

    def extend(self, token_ids: Sequence[int], *, is_last: bool) -> Piece:
        """Take more tokens. Returns what is known of them already."""
        self._token_ids += token_ids
        self._is_complete = is_last
        logits, self._next_logits = self._next_logits, None
        return self.piece(logits)

    @property
    def is_finished(self) -> bool:
        """Whether nothing will follow."""
        has_nothing = self._num_prompt_top is None and len(self._token_ids) == self._num_prompt_tokens
        return self._is_complete and (has_nothing or self._num_done == len(self._token_ids))

    @property
    def can_infer(self) -> bool:
        """Whether there are tokens whose logits are wanted."""
        return not self.is_finished and self._num_fed < self._end

    @property
    def whole_length(self) -> int | None:
        """The number of tokens to feed, if that is one inference; None if others went before or may follow."""
        is_whole = self._is_complete and self._num_fed == 0 and self._end <= PIECE_TOKENS
        return self._end if is_whole else None

    def next_tokens(self) -> list[int]:
        """The tokens to feed next. `piece` takes their logits."""
        token_ids = self._token_ids[self._num_fed : min(self._end, self._num_fed + PIECE_TOKENS)]
        self._num_fed += len(token_ids)
        return token_ids

    @property
    def _end(self) -> int:
        """Tokens whose logits are wanted: not those of the last one, which nothing follows."""
        return len(self._token_ids) - self._is_complete

    def piece(self, logits: NDArray[np.float32] | None) -> Piece:
        """What the logits say of known tokens.

        `logits` [M, vocabulary] are for the M tokens after those that are done, of which the last may be unknown.
        """
        begin, prompt, answer = self._num_done, None, None
        if logits is not None:
            known = np.array(self._token_ids[begin : begin + len(logits)], np.int64)
            if len(known) < len(logits):
                self._next_logits = logits[len(known) :].copy()
            self._num_done += len(known)
            of_prompt = min(max(self._num_prompt_tokens - begin, 0), len(known))
            prompt = _log_probs(logits[:of_prompt], known[:of_prompt], self._num_prompt_top)
            answer = _log_probs(logits[of_prompt : len(known)], known[of_prompt:], self._num_top)
        token_ids = self._token_ids[max(begin, self._num_prompt_tokens) : self._num_done]
        return Piece(self.key, prompt, token_ids, answer, is_last=self.is_finished)


def _log_probs(logits: NDArray[np.float32], token_ids: NDArray[np.int64], num_top: int | None) -> LogProbs | None:
    return to_log_probs(logits, token_ids, num_top) if len(token_ids) and num_top is not None else None


class Scorer:
    """The open sequences, which take turns, and those that wait until there is room for their tokens.

    `max_tokens` is that room; a sequence alone may have more.
    """

    def __init__(self, forward: Forward, max_tokens: int, write: Callable[[Piece], None]) -> None:
        self._forward = forward
        self._max_tokens = max_tokens
        self._write = write
        self._by_key: dict[int, ScoredSequence] = {}
        self._waiting: deque[ScoredSequence] = deque()
        self._open: deque[ScoredSequence] = deque()
        self._kept: dict[int, TokenSequence] = {}

    def take(self, command: Command) -> None:
        """Do what needs no inference."""
        if isinstance(command, Open):
            opened = self._by_key[command.key] = ScoredSequence(command)
            self._waiting.append(opened)
            self._admit()
        elif command.key not in self._by_key:
            pass  # it was dropped, or has ended, while this was on its way
        elif isinstance(command, Drop):
            self._forget(self._by_key[command.key])
        else:
            sequence = self._by_key[command.key]
            piece = sequence.extend(command.token_ids, is_last=command.is_last)
            if piece.token_ids or piece.is_last:
                self._deliver(sequence, piece)

    @property
    def has_work(self) -> bool:
        """Whether a sequence can go on."""
        return any(sequence.can_infer for sequence in self._open)

    def work(self) -> None:
        """One inference, for the sequence whose turn it is, and for others if all are short and whole."""
        while not self._open[0].can_infer:
            self._open.rotate(-1)
        sequence = self._open[0]
        self._open.rotate(-1)
        if sequence.whole_length is not None:
            batch = self._whole_ones(sequence)
            for each, logits in zip(
                batch, self._forward.infer_once([each.next_tokens() for each in batch]), strict=True
            ):
                self._deliver(each, each.piece(logits))
        else:
            kept = self._kept.get(sequence.key) or self._kept.setdefault(sequence.key, self._forward.new_sequence())
            self._deliver(sequence, sequence.piece(kept.feed(sequence.next_tokens())))

    def _whole_ones(self, first: ScoredSequence) -> list[ScoredSequence]:
        """The first and those that fit into one inference with it, each as long as the longest."""
        batch, longest = [first], first.whole_length or 0
        for each in self._open:
            length = each.whole_length
            if each is first or length is None or not each.can_infer:
                continue
            if max(longest, length) * (len(batch) + 1) <= PIECE_TOKENS:
                batch.append(each)
                longest = max(longest, length)
        return batch

    def _deliver(self, sequence: ScoredSequence, piece: Piece) -> None:
        if piece.is_last:
            self._forget(sequence)
        self._write(piece)

    def _forget(self, sequence: ScoredSequence) -> None:
        del self._by_key[sequence.key]
        self._kept.pop(sequence.key, None)
        self._waiting = deque(each for each in self._waiting if each is not sequence)
        self._open = deque(each for each in self._open if each is not sequence)
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            taken = sum(sequence.reserved_tokens for sequence in self._open)
            if self._open and taken + self._waiting[0].reserved_tokens > self._max_tokens:
                return
            self._open.append(self._waiting.popleft())


def main(engine_dir: Path, max_tokens: int) -> None:
    """Work until the input ends, then end the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_LOWEST_PRIORITY)
    pieces, sys.stdout = sys.stdout.buffer, sys.stderr

    def write(piece: Piece) -> None:
        pickle.dump(piece, pieces)
        pieces.flush()

    commands: SimpleQueue[Command | None] = SimpleQueue()
    threading.Thread(target=_read, args=(commands,), daemon=True).start()
    import forward  # loads OpenVINO; commands are read meanwhile

    scorer = Scorer(forward.Forward(engine_dir), max_tokens, write)
    while True:
        while not commands.empty() or not scorer.has_work:
            command = commands.get()
            if command is None:
                os._exit(0)  # ending the interpreter may wait for ever, for threads of OpenVINO
            scorer.take(command)
        scorer.work()


def _read(commands: "SimpleQueue[Command | None]") -> None:
    try:
        while True:
            commands.put(pickle.load(sys.stdin.buffer))
    except (EOFError, pickle.UnpicklingError):
        commands.put(None)  # the engine's process has ended


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
