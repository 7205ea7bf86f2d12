"""The process of scorer.py: starts with the first request that needs it, and again after it has died.

All methods are called by the batcher's thread, and so are the clients: two more threads read and write, and pass on.
"""

import pickle
import subprocess
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from generation import GenerationRequest
from python_child import command_of, environment_with
from scorer_messages import Command, Drop, Extend, Open, Piece

_ENDED = "the process that computes log probabilities has ended"
_SHUTTING_DOWN = "the server is shutting down"


class PieceReader(Protocol):
    """The receiver of pieces."""

    def on_piece(self, piece: Piece) -> None:
        """The next piece of its sequence."""

    def on_other_piece(self) -> None:
        """The process works, on another sequence."""

    def on_end(self, message: str) -> None:
        """Nothing more will come, for this reason."""


class Scoring:
    """Sequences to score. `call` runs a function in the batcher's thread. `max_tokens`: see scorer.py."""

    def __init__(self, engine_dir: Path, max_tokens: int, call: Callable[[Callable[[], None]], None]) -> None:
        self._command = command_of("scorer.py", str(engine_dir), str(max_tokens))
        self._call = call
        self._keys = count()
        self._clients: dict[int, PieceReader] = {}
        self._process: _Process | None = None

    def open(self, request: GenerationRequest, client: PieceReader) -> int:
        """A new sequence with the request's prompt. Returns its key."""
        key = next(self._keys)
        self._clients[key] = client
        self._process = self._process or _Process(self._command, self._call, self._on_piece, self._on_end)
        self._process.send(
            Open(
                key=key,
                prompt_token_ids=request.prompt_token_ids.reshape(-1),
                num_prompt_top=request.num_prompt_top_log_probs,
                num_top=request.num_top_log_probs or 0,
                reserved_tokens=request.reserved_tokens,
            )
        )
        return key

    def extend(self, key: int, token_ids: list[int], *, is_last: bool) -> None:
        """More tokens of an answer; none may follow the last ones."""
        if self._process is not None and key in self._clients:
            self._process.send(Extend(key, token_ids, is_last))

    def drop(self, key: int) -> None:
        """Nothing more of it is wanted."""
        if self._clients.pop(key, None) is not None and self._process is not None:
            self._process.send(Drop(key))

    def close(self) -> None:
        """End the process, and fail what it has not scored. The batcher must have ended."""
        if self._process is not None:
            self._on_end(self._process, _SHUTTING_DOWN)

    def _on_piece(self, piece: Piece) -> None:
        client = self._clients.get(piece.key)
        if piece.is_last:
            self._clients.pop(piece.key, None)
        if client is not None:
            client.on_piece(piece)
        for key, other in list(self._clients.items()):
            if key != piece.key:
                other.on_other_piece()

    def _on_end(self, process: "_Process", reason: str = _ENDED) -> None:
        if process is not self._process:
            return
        self._process = None
        process.end()
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.on_end(reason)


class _Process:
    """The running process, a thread that writes commands and one that reads pieces."""

    def __init__(
        self,
        command: list[str],
        call: Callable[[Callable[[], None]], None],
        on_piece: Callable[[Piece], None],
        on_end: Callable[["_Process"], None],
    ) -> None:
        # Otherwise freed buffers stay with the process: 300 MB after the demo model is compiled.
        environment = environment_with(MALLOC_MMAP_THRESHOLD_="65536")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._commands: SimpleQueue[Command | None] = SimpleQueue()
        self._call, self._on_piece, self._on_end = call, on_piece, on_end
        for work in (self._write, self._read):
            threading.Thread(target=work, name="scoring", daemon=True).start()

    def send(self, command: Command) -> None:
        """Returns at once."""
        self._commands.put(command)

    def end(self) -> None:
        """Kill the process."""
        self._commands.put(None)
        self._process.kill()
        self._process.wait()

    def _write(self) -> None:
        assert self._process.stdin is not None
        try:
            while (command := self._commands.get()) is not None:
                pickle.dump(command, self._process.stdin)
                self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended, as the other thread will notice

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                piece: Piece = pickle.load(self._process.stdout)
                self._call(lambda piece=piece: self._on_piece(piece))  # type: ignore[misc]
        except (EOFError, pickle.UnpicklingError):
            self._call(lambda: self._on_end(self))
