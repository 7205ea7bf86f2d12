"""One replica, step by step: what waits, what is in the batch, how long a step takes by `make plan`'s arithmetic.

As TensorRT-LLM runs it here: first come, first served; a request starts when there is a slot and room in the KV cache
for its prompt and max_tokens; prompts are worked on in pieces beside the running answers, up to max_num_tokens a step.
Not here: prompts that are found in the KV cache, the time in frontend and network, and communication of GPUs.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from build_engine.mixtral import MixtralConfig
from build_engine.model_config import Limits
from build_engine.tensorrt_llm.gpus import Gpu
from build_engine.tensorrt_llm.memory import kv_tokens
from build_engine.tensorrt_llm.profiles import PROFILES, profile_limits
from build_engine.tensorrt_llm.speed import full_step_s

from .loads import Load, Request, draw

_CONTEXT_STEP = 32
"""Mean contexts are rounded to this many tokens, so that equal steps are worked out once."""

StepTime = Callable[[int, int, int], float]
"""Seconds of a step, by the requests in it, its tokens, and the tokens of context that each request has on average."""


@dataclass(frozen=True)
class Engine:
    """The limits of one replica; `kv_tokens` is the size of its KV cache."""

    limits: Limits
    kv_tokens: int
    step_s: StepTime


def engine_of(config: MixtralConfig, gpu: Gpu, tp_size: int, profile: str) -> Engine:
    """The engine that `make limits` plans for these GPUs. Raises ValueError if the model does not fit."""
    planned = profile_limits(PROFILES[profile], config, gpu, tp_size)
    if planned is None:
        raise ValueError(f"{gpu.name}: the model does not fit on {tp_size}")

    @cache
    def step_s(batch_size: int, num_tokens: int, context: int) -> float:
        return full_step_s(config, gpu, tp_size, batch_size=batch_size, num_tokens=num_tokens, context=context)

    return Engine(planned.limits, kv_tokens(config, gpu.memory_gib, tp_size), step_s)


@dataclass
class Observed:
    """Of a run: seconds to first tokens and per token of the requests that ended, and how busy the engine was.

    `ended_at` is when the last request ended. `saturated_s` is the time in which requests waited, once as many had
    ended as can run: before, all are at the same point. `saturated_tokens` are the answers' tokens of that time.
    """

    first_token_s: list[float] = field(default_factory=list)
    per_token_s: list[float] = field(default_factory=list)
    ended_at: float = 0.0
    saturated_s: float = 0.0
    saturated_tokens: int = 0
    largest_batch: int = 0


@dataclass
class _Prefill:
    """A request whose prompt is being worked on."""

    request: Request
    remaining: int


class Replica:
    """The state between two steps. Answers are kept in a heap by the step in which they end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[Request] = deque()
        self._prefills: deque[_Prefill] = deque()
        self._ends: list[tuple[int, int, Request, float]] = []
        self._reserved = self._context = self._step = self._count = self._num_ended = 0
        self.now = 0.0
        self.observed = Observed()

    def arrive(self, request: Request) -> None:
        """It waits until there is room."""
        self._waiting.append(request)

    @property
    def is_idle(self) -> bool:
        """Nothing runs or waits."""
        return not (self._waiting or self._prefills or self._ends)

    def step(self) -> None:
        """Admit what fits, then work on a token of each answer and on pieces of prompts."""
        self._admit()
        generating = len(self._ends)
        prompts = self._take_prompts(self._engine.limits.max_num_tokens - generating)
        batch = generating + len(self._prefills)
        context = math.ceil(self._context / batch / _CONTEXT_STEP) * _CONTEXT_STEP
        duration_s = self._engine.step_s(batch, generating + prompts, context)
        self.now += duration_s
        self._step += 1
        self._context += generating + prompts
        self.observed.largest_batch = max(self.observed.largest_batch, batch)
        self._end_answers()
        begun = self._begin_answers()
        if self._waiting and self._num_ended >= self._engine.limits.max_batch_size:
            self.observed.saturated_s += duration_s
            self.observed.saturated_tokens += generating + begun

    def _admit(self) -> None:
        limits = self._engine.limits
        while self._waiting and len(self._ends) + len(self._prefills) < limits.max_batch_size:
            if self._reserved + self._waiting[0].reserved > self._engine.kv_tokens:
                return
            request = self._waiting.popleft()
            self._reserved += request.reserved
            self._prefills.append(_Prefill(request, request.prompt_tokens))

    def _take_prompts(self, room: int) -> int:
        """The oldest prompts first. Returns the tokens of the step."""
        taken = 0
        for prefill in self._prefills:
            piece = min(prefill.remaining, room - taken)
            prefill.remaining -= piece
            taken += piece
            if taken == room:
                break
        return taken

    def _begin_answers(self) -> int:
        """A prompt that is complete has its first token with this step. Returns how many have."""
        before = self._count
        while self._prefills and self._prefills[0].remaining == 0:
            request = self._prefills.popleft().request
            self.observed.first_token_s.append(self.now - request.arrived_at)
            self._count += 1
            heapq.heappush(self._ends, (self._step + request.answer_tokens - 1, self._count, request, self.now))
        self._end_answers()
        return self._count - before

    def _end_answers(self) -> None:
        while self._ends and self._ends[0][0] <= self._step:
            _, _, request, first_at = heapq.heappop(self._ends)
            self._num_ended += 1
            self._reserved -= request.reserved
            self._context -= request.prompt_tokens + request.answer_tokens - 1
            if request.answer_tokens > 1:
                self.observed.per_token_s.append((self.now - first_at) / (request.answer_tokens - 1))
            self.observed.ended_at = self.now


def simulate(engine: Engine, requests: Sequence[Request]) -> Observed:
    """Run all requests, in the order in which they arrive, to their ends."""
    replica, coming = Replica(engine), deque(requests)
    while coming or not replica.is_idle:
        if replica.is_idle:
            replica.now = max(replica.now, coming[0].arrived_at)
        while coming and coming[0].arrived_at <= replica.now:
            replica.arrive(coming.popleft())
        replica.step()
    return replica.observed


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by `share` of them."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True)
class Capacity:
    """What one replica serves of a load: requests and answers' tokens per second, and what stops it there."""

    requests_per_s: float
    tokens_per_s: float
    first_token_s: float
    per_token_s: float
    largest_batch: int
    bound: str


def capacity(engine: Engine, load: Load, mean_answer: float, count: int) -> Capacity:
    """The highest rate at which the load's promise holds for `count` requests; without one, that of a full queue."""
    max_seq_len = engine.limits.max_seq_len
    enough_to_wait = max(count, 8 * engine.limits.max_batch_size)
    full = simulate(engine, draw(load, enough_to_wait, math.inf, max_seq_len))
    most = full.saturated_tokens / full.saturated_s
    if load.promise is None:
        return _capacity(full, most / mean_answer, most, "engine")
    low, high = 0.0, most / mean_answer
    bound = "engine"
    for _ in range(10):
        rate = (low + high) / 2
        if broken := _broken(load, simulate(engine, draw(load, count, rate, max_seq_len))):
            high, bound = rate, broken
        else:
            low = rate
    if low == 0.0:
        return _capacity(simulate(engine, draw(load, count, high, max_seq_len)), 0.0, 0.0, bound)
    return _capacity(simulate(engine, draw(load, count, low, max_seq_len)), low, low * mean_answer, bound)


def _broken(load: Load, observed: Observed) -> str:
    """Which part of the promise does not hold; empty if all does."""
    assert load.promise is not None
    if percentile(observed.per_token_s, 0.99) > load.promise.per_token_s:
        return "time per token"
    return "first token" if percentile(observed.first_token_s, 0.99) > load.promise.first_token_s else ""


def _capacity(observed: Observed, requests_per_s: float, tokens_per_s: float, bound: str) -> Capacity:
    return Capacity(
        requests_per_s=requests_per_s,
        tokens_per_s=tokens_per_s,
        first_token_s=percentile(observed.first_token_s, 0.99),
        per_token_s=percentile(observed.per_token_s, 0.99),
        largest_batch=observed.largest_batch,
        bound=bound,
    )
