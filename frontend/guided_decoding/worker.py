"""The worker process that compiles constraints: python -m frontend.guided_decoding.worker, started by compiler.py.

Reads pickled requests from stdin and writes JSON answers to stdout, each preceded by its length. A timer of processor
time ends the process when a constraint takes too much of it: SIGPROF without a handler, as Python runs none while
xgrammar compiles. The process also ends with its input, so it does not outlive its parent.

xgrammar runs in a thread with a smaller stack than any thread of an engine has. A grammar too deep for the stack ends
this process, never the engine.
"""

import json
import pickle
import resource
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any, BinaryIO

from frontend.errors import InvalidRequest

from .errors import InvalidConstraint
from .grammar_check import checked, compile_checked
from .latency_probe import probe_latency
from .spec import Constraint, Grammar, Guide, param_of, with_any_arguments
from .to_ebnf import naming_field, to_guide
from .vocabulary import Vocabulary
from .worker_messages import LENGTH, GuideLimits
from .xgrammar import RAW_VOCABULARY, Core, load_core

STACK_BYTES = 1024**2
"""Of the thread that xgrammar runs in. The engines' threads have 8 MiB, glibc's default."""


def main() -> None:
    """Answer requests until the input ends. The first one holds the vocabulary and the limits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the frontend, which then ends the worker
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    vocabulary, limits = _receive(source)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    compiler = _Compiler(load_core(), vocabulary, limits)
    while (constraint := _receive(source)) is not None:
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)  # SIGPROF ends the process
        answer = json.dumps(compiler.answer(constraint)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(LENGTH.pack(len(answer)) + answer)
        sink.flush()


def _receive(source: BinaryIO) -> Any:
    """The next request; None at the end of the input."""
    head = source.read(LENGTH.size)
    return pickle.loads(source.read(*LENGTH.unpack(head))) if len(head) == LENGTH.size else None


class _Compiler:
    """Translates and compiles constraints for one vocabulary."""

    def __init__(self, core: Core, vocabulary: Vocabulary, limits: GuideLimits) -> None:
        self._core, self._limits = core, limits
        self._stop_token_ids = frozenset(vocabulary.stop_token_ids)
        self._vocab_size = max(*vocabulary.token_bytes, *vocabulary.stop_token_ids) + 1
        tokens = [vocabulary.token_bytes.get(token_id, b"") for token_id in range(self._vocab_size)]
        info = core.TokenizerInfo(tokens, RAW_VOCABULARY, self._vocab_size, vocabulary.stop_token_ids, False)
        self._compiler = core.GrammarCompiler(info, 1, False, -1)
        threading.stack_size(STACK_BYTES)  # of threads that start from now on
        self._thread = ThreadPoolExecutor(1)

    def answer(self, constraint: Constraint) -> dict[str, Any]:
        """The fields of a Guide, or `message` and `param` of an error."""
        try:
            return asdict(self._guide(constraint))
        except InvalidRequest as error:
            return {"message": error.message, "param": error.param or ""}

    def _guide(self, constraint: Constraint) -> Guide:
        """The guide, without the schemas of tools that are not strict if they make it too large or too slow."""
        try:
            return self._checked(constraint)
        except InvalidRequest:
            if isinstance(constraint, Grammar) or (rest := with_any_arguments(constraint)) == constraint:
                raise
        return self._checked(rest)

    def _checked(self, constraint: Constraint) -> Guide:
        guide = to_guide(constraint)
        with naming_field(param_of(constraint)):
            return replace(guide, ebnf=self._thread.submit(self._check, guide.ebnf).result())

    def _check(self, text: str) -> str:
        """The text that the engine gets for that of a guide."""
        text = checked(self._core, text)
        if len(text.encode()) > self._limits.ebnf_bytes:
            raise InvalidConstraint(f"becomes a grammar of more than {self._limits.ebnf_bytes} bytes")
        compiled = compile_checked(self._core, self._compiler, text)
        if compiled.memory_size_bytes > self._limits.compiled_bytes:
            raise InvalidConstraint(
                f"takes {compiled.memory_size_bytes} bytes when it is compiled; accepted: {self._limits.compiled_bytes}"
            )
        probe_latency(self._core, compiled, self._vocab_size, self._stop_token_ids)
        return text


if __name__ == "__main__":
    main()
