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
import time
from pathlib import Path
from typing import Any

import openvino_genai as genai
from guide_cache import GuideCache, GuideError

MAX_CPU_S = 6.0
"""Processor time for one guide."""
MAX_BYTES = 512 * 1024**2
"""Memory that the process may take beyond what it has at the start."""
READY = "ready\n"
"""The first line of the output."""
_NUM_TOKENS = 12


def main(engine_dir: Path) -> None:
    """Answer guides until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)  # the batch goes first
    protocol, sys.stdout = sys.stdout, sys.stderr
    cache = GuideCache(engine_dir / "guide_checker", genai.Tokenizer(engine_dir / "tokenizer"))
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
    """What the guide costs the step that a request starts in, and the slowest of some others; or its `error`."""
    try:
        cache.compile(guide)
    except GuideError as error:
        return {"error": str(error)}
    handle = cache.steps(guide, _NUM_TOKENS)
    seconds, more = [], True
    while more:
        began = time.process_time()
        more = cache.step()
        seconds.append(time.process_time() - began)
    del handle
    return {"start_s": seconds[0], "token_s": max(seconds[1:], default=0.0)}


def _data_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
