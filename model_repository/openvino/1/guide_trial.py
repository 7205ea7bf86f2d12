"""Try guides in a process that may crash or be killed without harm: python3 guide_trial.py ENGINE_DIR.

The frontend compiles every guide with TensorRT-LLM's release of xgrammar. That of OpenVINO GenAI is another one, for
which other guides are slow or large. Reads guides from stdin and writes costs to stdout, each as JSON on one line.
A timer of processor time, SIGPROF without a handler, ends the process with a guide that takes too much of it.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import openvino_genai as genai
from guide_cache import GuideCache, GuideError, write_that_goes_on

MAX_CPU_S = 6.0
"""Processor time for one guide."""
MAX_BYTES = 512 * 1024**2
"""Memory that the process may take beyond what it has at the start."""
READY = "ready\n"
"""The first line of the output."""
MAX_TOKENS = 240
"""Random tokens that a guide is followed for, while each takes longer."""
_FEW_TOKENS = 96
"""The same where they do not: most guides take about 1 ms for each token, however long the answer is."""
_MIN_TOKENS = 26
"""Those of a shorter answer are not compared."""
_MAX_TOKENS_S = 1.5
"""Processor time for these tokens."""
_NOTICEABLE_S = 0.01
"""Time for a token up to which growth does not count: the trial has other work to do for each."""


def main(engine_dir: Path) -> None:
    """Answer guides until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)  # the batch goes first
    protocol, sys.stdout = sys.stdout, sys.stderr
    tokenizer = genai.Tokenizer(engine_dir / "tokenizer")
    with tempfile.TemporaryDirectory() as directory:
        write_that_goes_on(engine_dir / "guide_checker", Path(directory), tokenizer.get_eos_token_id())
        cache = GuideCache(Path(directory), tokenizer)
    limit = _data_bytes() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    protocol.write(READY)
    protocol.flush()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
        answer = json.dumps(_try(cache, genai.StructuredOutputConfig(**json.loads(line))))
        signal.setitimer(signal.ITIMER_PROF, 0)
        protocol.write(answer + "\n")
        protocol.flush()
        if cache.is_full:
            cache.clear()


def _try(cache: GuideCache, guide: genai.StructuredOutputConfig) -> dict[str, Any]:
    """What the guide costs the step that a request starts in, the slowest of the others, their growth; or `error`."""
    try:
        cache.compile(guide)
    except GuideError as error:
        return {"error": str(error)}
    start_s, *seconds = _follow(cache, guide)
    return {"start_s": start_s, "token_s": max(seconds, default=0.0), "growth": growth_of(seconds)}


def _follow(cache: GuideCache, guide: genai.StructuredOutputConfig) -> list[float]:
    """Processor seconds of each step of a random answer."""
    handle = cache.steps(guide, MAX_TOKENS)
    seconds, more = list[float](), True
    while more and sum(seconds) < _MAX_TOKENS_S and (len(seconds) < _FEW_TOKENS or _ratio(seconds) > 1.5):
        began = time.process_time()
        more = cache.step()
        seconds.append(time.process_time() - began)
    del handle
    while cache.step():
        pass
    return seconds


def growth_of(seconds: Sequence[float]) -> float:
    """How many times as long as the first tokens the last ones take; 1 where that is little.

    An ambiguous grammar such as `a ::= a a | "x"` can read a longer answer in more ways, all of which xgrammar follows.
    """
    is_long = len(seconds) >= _MIN_TOKENS
    return _ratio(seconds) if is_long and median(seconds[-8:]) > _NOTICEABLE_S else 1.0


def _ratio(seconds: Sequence[float]) -> float:
    """Half of the last tokens to the slowest quarter of the first.

    Inside a long string some tokens take ten times as long as others, from the start on.
    """
    return median(seconds[-8:]) / quantiles(seconds[2:18], n=4)[2]


def _data_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
