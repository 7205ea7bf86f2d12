"""Compile a guide before its request joins the batch, in a thread of its own.

GenAI compiles guides inside `step`, where an invalid one fails every request of the batch and a slow one stops them
all. So each new guide is first tried in another process (guide_trial.py), which says what it costs. What costs the
batch little is then compiled here, beside the batch and into the cache that both share.
"""

import json
import os
import signal
import subprocess
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import openvino_genai as genai
from generation import GenerationRequest, InvalidRequest
from guide_cache import GuideCache, GuideError
from guide_trial import MAX_BYTES, MAX_CPU_S, READY
from python_child import command_of, environment_with

MAX_START_S = 0.25
"""Processor time that a guide may take of the step that its request starts in."""
MAX_TOKEN_S = 0.15
"""Processor time that it may take of each other step."""
MAX_GROWTH = 4.0
"""How many times as long as for the first tokens it may take for later ones."""
NUM_TRIALS = 2
"""Processes that guides are tried in: a slow guide does not delay the next one."""
MAX_TRIED = 512
"""Guides of which the outcome of the trial is kept; the oldest is dropped first."""


Refuse = Callable[[InvalidRequest], None]


class Guides:
    """Passes guided requests on when their guide is in the engine's cache.

    Guides are tried in threads that wait for their processes. One more thread compiles what was tried, and passes on.
    """

    def __init__(self, engine_dir: Path, tokenizer: genai.Tokenizer) -> None:
        self._cache = GuideCache(engine_dir / "guide_checker", tokenizer)
        self._trials = SimpleQueue[_Trial]()
        for _ in range(NUM_TRIALS):
            self._trials.put(_Trial(engine_dir))
        self._trying = ThreadPoolExecutor(NUM_TRIALS, "guide-trial")
        self._compiling = ThreadPoolExecutor(1, "guide-compiler", os.nice, (5,))  # the batch goes first
        self._tried: OrderedDict[str, InvalidRequest | None] = OrderedDict()
        self._compiled: set[str] = set()
        self._num_starting = 0
        self._changed = threading.Condition()

    def pass_on(self, request: GenerationRequest, submit: Callable[[], None], refuse: Refuse) -> None:
        """Call `submit` from another thread when the guide is compiled, or `refuse` if the engine does not take it.

        `started` must be called once for each `submit`. Until then no other guide is compiled.
        """
        guide = request.generation_config.structured_output_config
        key = _key(guide)
        thread = self._compiling if key in self._tried else self._trying
        work = self._pass_tried_on if key in self._tried else self._try
        thread.submit(_or_die, work, key, guide, submit, refuse)

    def started(self) -> None:
        """A submitted request has its first token, or has ended."""
        with self._changed:
            self._num_starting -= 1
            self._changed.notify()

    def close(self) -> None:
        """End the threads and processes."""
        for executor in (self._trying, self._compiling):
            executor.shutdown(wait=False, cancel_futures=True)
        while not self._trials.empty():
            self._trials.get().end()

    def _try(self, key: str, guide: genai.StructuredOutputConfig, submit: Callable[[], None], refuse: Refuse) -> None:
        trial = self._trials.get()
        try:
            self._tried[key] = trial.run(key)
        finally:
            self._trials.put(trial)
        if len(self._tried) > MAX_TRIED:
            self._tried.popitem(last=False)
        self._compiling.submit(_or_die, self._pass_tried_on, key, guide, submit, refuse)

    def _pass_tried_on(
        self, key: str, guide: genai.StructuredOutputConfig, submit: Callable[[], None], refuse: Refuse
    ) -> None:
        try:
            if key in self._tried and (refusal := self._tried[key]):
                raise refusal
            self._compile(key, guide)
        except InvalidRequest as error:
            refuse(error)
            return
        with self._changed:
            self._num_starting += 1
        submit()

    def _compile(self, key: str, guide: genai.StructuredOutputConfig) -> None:
        if key in self._compiled:
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._num_starting)
        if self._cache.is_full:
            self._cache.clear()
            self._compiled.clear()
        try:
            self._cache.compile(guide)
        except GuideError as error:
            raise InvalidRequest(f"guided_decoding_guide does not compile: {error}") from error
        self._compiled.add(key)


def _key(guide: genai.StructuredOutputConfig) -> str:
    fields = {name: getattr(guide, name) for name in ("json_schema", "regex", "grammar")}
    return json.dumps({name: text for name, text in fields.items() if text is not None})


def _or_die(work: Callable[..., None], *arguments: Any) -> None:
    """End the process if a thread fails. Triton then fails all requests, which would wait for ever otherwise."""
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


class _Trial:
    """The process of guide_trial.py. It starts with the first guide, and again after it has died."""

    def __init__(self, engine_dir: Path) -> None:
        self._command = command_of("guide_trial.py", str(engine_dir))
        self._process: subprocess.Popen[str] | None = None

    def run(self, guide: str) -> InvalidRequest | None:
        """Why the guide is refused: it does not compile, or costs too much. None if it is not."""
        try:
            cost = self._ask(guide)
        except InvalidRequest as refusal:
            return refusal
        if "error" in cost:
            return InvalidRequest(f"guided_decoding_guide does not compile: {cost['error']}")
        for field, limit in (("start_s", MAX_START_S), ("token_s", MAX_TOKEN_S)):
            if cost[field] > limit:
                return InvalidRequest(f"guided_decoding_guide takes {cost[field]:.2f} s of a step; accepted: {limit} s")
        if cost["growth"] > MAX_GROWTH:
            return InvalidRequest("guided_decoding_guide takes more time with each token, as its grammar is ambiguous")
        return None

    def end(self) -> None:
        """Kill the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment_with(), text=True
        )
        assert process.stdout is not None
        if process.stdout.readline() != READY:
            raise InvalidRequest(f"guided_decoding_guide cannot be tried: guide_trial.py ended with {process.wait()}")
        return process

    def _ask(self, guide: str) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(guide + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            cost: dict[str, Any] = json.loads(answer)
            return cost
        self._process = None
        if process.wait() == -signal.SIGPROF:
            raise InvalidRequest(f"guided_decoding_guide takes more than {MAX_CPU_S} s to compile")
        raise InvalidRequest(f"guided_decoding_guide takes more than {MAX_BYTES} bytes, or cannot be compiled")
