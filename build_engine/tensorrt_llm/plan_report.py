"""Plans for a terminal of 100 columns, and as JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from build_engine.mixtral import MixtralConfig

from .gpus import Gpu
from .memory import GIB, KV_CACHE_FRACTION, RUNTIME_BYTES
from .plan import BATCH_SIZES, TP_SIZES, Plan, make_plan
from .profiles import PROFILES, Profile
from .speed import CONTEXT, EXPECTED, Speed

_LABEL, _CELL = 28, 18
_NOTES = (
    f"At most: by bandwidth and arithmetic, with {CONTEXT} tokens of context, without communication of GPUs.",
    f"Expected: {EXPECTED.bandwidth:.0%} of the bandwidth, {EXPECTED.arithmetic:.0%} of the arithmetic, as"
    " TensorRT-LLM reached with other Mixtrals.",
    "batch_scheduler_policy is guaranteed_no_evict in both: max_utilization pauses requests, and a",
    "guided answer of a paused request would not be valid.",
)


def report(config: MixtralConfig, gpu: Gpu) -> str:
    """What fits on 1, 2, 4 and 8 of these GPUs: a column for each that it fits, a line for each that it does not."""
    made = _plans(config, gpu)
    fitting = [plan for plan in made.values() if isinstance(plan, Plan) and plan.kv_tokens]
    table = [*_table(fitting), ""] if fitting else []
    return "\n".join([*_head(gpu), *_window(config), "", *table, *_problems(made, gpu), *_NOTES])


def report_json(config: MixtralConfig, gpu: Gpu) -> str:
    """The same figures: `gpu`, and `plans` by tensor_parallel_size, each a plan or why there is none."""
    made = _plans(config, gpu)
    plans = {tp_size: {"problem": plan} if isinstance(plan, str) else asdict(plan) for tp_size, plan in made.items()}
    return json.dumps({"gpu": asdict(gpu), "plans": plans}, indent=2)


def _plans(config: MixtralConfig, gpu: Gpu) -> dict[int, Plan | str]:
    return {tp_size: make_plan(config, gpu, tp_size) for tp_size in TP_SIZES}


def _head(gpu: Gpu) -> Iterator[str]:
    yield (
        f"{gpu.name}: SM {gpu.sm}, {gpu.memory_gib:g} GiB usable, {gpu.bandwidth_tb_s:g} TB/s,"
        f" {gpu.float16_tflops:g} TFLOPS in float16"
    )
    yield (
        f"Of a GPU's memory the runtime gets {RUNTIME_BYTES / GIB:.0f} GiB, and the float16 KV cache"
        f" {KV_CACHE_FRACTION:.0%} of what the weights leave."
    )


def _window(config: MixtralConfig) -> Iterator[str]:
    if config.context_length < config.max_position_embeddings:
        yield (
            f"max_seq_len is bounded by sliding_window, {config.context_length:,}, below max_position_embeddings,"
            f" {config.max_position_embeddings:,}."
        )


def _table(plans: list[Plan]) -> Iterator[str]:
    yield _row("tensor_parallel_size", (str(plan.tp_size) for plan in plans))
    yield _row("weights per GPU", (f"{plan.weight_bytes / GIB:.2f} GiB" for plan in plans))
    yield _row("KV cache, tokens", (f"{plan.kv_tokens:,}" for plan in plans))
    yield "longest sequence, in tokens, of each request"
    for requests in BATCH_SIZES:
        yield _row(f"  of {requests}", (f"{plan.longest_sequences[requests]:,}" for plan in plans))
    yield "tokens/s of all requests, expected (at most)"
    for requests in BATCH_SIZES:
        yield _row(f"  with {requests}", (_speed(plan.speeds.get(requests)) for plan in plans))
    for profile in PROFILES.values():
        yield from _profile(profile, plans)


def _profile(profile: Profile, plans: list[Plan]) -> Iterator[str]:
    yield f"{profile.name}: requests with max_tokens {profile.max_tokens:,}, no step above {profile.longest_step_s:g} s"
    planned = [plan.profiles[profile.name] for plan in plans]
    yield _row("  max_batch_size", (str(column.limits.max_batch_size) for column in planned))
    yield _row("  max_num_tokens", (str(column.limits.max_num_tokens) for column in planned))
    yield _row("  max_seq_len", (str(column.limits.max_seq_len) for column in planned))
    yield _row("  KV cache ends at batch", (f"{column.kv_cache_requests:,}" for column in planned))
    yield _row("  step of max_num_tokens", (f"{column.step_s * 1000:.0f} ms" for column in planned))
    yield _row("  tokens/s, full batch", (_speed(column.speed) for column in planned))


def _problems(made: dict[int, Plan | str], gpu: Gpu) -> Iterator[str]:
    for tp_size, plan in made.items():
        if isinstance(plan, str):
            yield f"TP {tp_size}: not possible: {plan}"
        elif plan.kv_tokens == 0:
            needed = f"weights take {plan.weight_bytes / GIB:.2f} and the runtime {RUNTIME_BYTES / GIB:.0f} GiB"
            yield f"TP {tp_size}: does not fit: {needed} of {gpu.memory_gib:g}"


def _speed(found: Speed | None) -> str:
    return f"{found.expected:,.0f} ({found.at_most:,.0f})" if found else "-"


def _row(label: str, cells: Iterable[str]) -> str:
    return f"{label:<{_LABEL}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)
