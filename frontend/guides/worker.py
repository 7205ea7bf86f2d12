"""The process that compiles guides: python -m frontend.guides.worker, started by compiler.py.

Reads pickled requests and writes JSON answers, each behind its length. It ends itself when a guide takes too long, as
no signal handler of Python's runs while xgrammar does, and when its parent is gone.
"""

import json
import pickle
import resource
import signal
import sys
from typing import Any, BinaryIO

from frontend.errors import InvalidRequest

from .problems import GuideProblem
from .soundness import compile_grammar
from .spec import Guide, field_of
from .translation import blaming, to_ebnf_text
from .wire import LENGTH, GuideLimits, Vocabulary
from .xgrammar_core import RAW_VOCABULARY, Core, GrammarCompiler, load_core


def main() -> None:
    """Serve until the input ends. The first request is what all others need."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the frontend, which then closes this
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    vocabulary, limits = _receive(source)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    core = load_core()
    compiler = _compiler(core, vocabulary)
    while (guide := _receive(source)) is not None:
        signal.setitimer(signal.ITIMER_REAL, limits.time_s)  # SIGALRM ends the process
        answer = json.dumps(_answer(core, compiler, guide, limits)).encode()
        signal.setitimer(signal.ITIMER_REAL, 0)
        sink.write(LENGTH.pack(len(answer)) + answer)
        sink.flush()


def _receive(source: BinaryIO) -> Any:
    """The next request; None at the end of the input."""
    head = source.read(LENGTH.size)
    return pickle.loads(source.read(*LENGTH.unpack(head))) if len(head) == LENGTH.size else None


def _compiler(core: Core, vocabulary: Vocabulary) -> GrammarCompiler:
    size = max(*vocabulary.token_bytes, *vocabulary.stop_token_ids) + 1
    tokens = [vocabulary.token_bytes.get(token_id, b"") for token_id in range(size)]
    info = core.TokenizerInfo(tokens, RAW_VOCABULARY, size, vocabulary.stop_token_ids, False)
    return core.GrammarCompiler(info, 1, False, -1)


def _answer(core: Core, compiler: GrammarCompiler, guide: Guide, limits: GuideLimits) -> dict[str, str]:
    try:
        text = to_ebnf_text(guide)
        with blaming(field_of(guide)):
            if len(text.encode()) > limits.ebnf_bytes:
                raise GuideProblem(f"becomes a grammar of more than {limits.ebnf_bytes} bytes")
            compile_grammar(core, compiler, text)
    except InvalidRequest as refusal:
        return {"message": refusal.message, "param": refusal.param or ""}
    return {"ebnf": text}


if __name__ == "__main__":
    main()
