"""Plans as text for a terminal."""

from collections.abc import Iterator

from build_engine.mixtral import MixtralConfig

from .gpus import Gpu
from .plan import (
    BATCH_SIZES,
    CONCURRENCIES,
    GIB,
    KV_CACHE_FRACTION,
    ROOFLINE_CONTEXT,
    RUNTIME_BYTES,
    TP_SIZES,
    Plan,
    make_plan,
)


def report(config: MixtralConfig, gpu: Gpu) -> str:
    """What fits on 1, 2, 4 and 8 of these GPUs."""
    lines = [
        f"{gpu.name}: SM {gpu.sm}, {gpu.memory_gib:g} GiB usable, {gpu.bandwidth_tb_s:g} TB/s; per GPU"
        f" {RUNTIME_BYTES / GIB:.0f} GiB for the runtime, {KV_CACHE_FRACTION:.0%} of the rest for the float16 KV cache",
    ]
    for tp_size in TP_SIZES:
        plan = make_plan(config, gpu, tp_size)
        lines += ["", f"TP {tp_size}"]
        lines += [f"  not possible: {plan}"] if isinstance(plan, str) else list(_lines(plan))
    return "\n".join(lines)


def _lines(plan: Plan) -> Iterator[str]:
    yield f"  weights per GPU        {plan.weight_bytes / GIB:.2f} GiB ({plan.weight_bytes} bytes)"
    yield f"  KV cache per token     {plan.kv_bytes_per_token / 1024:g} KiB per GPU"
    if plan.recommended is None:
        yield "  does not fit: no memory is left for a KV cache"
        return
    yield f"  KV cache               {plan.kv_tokens} tokens"
    yield f"  longest sequence       {_by(CONCURRENCIES, plan.longest_sequences, 'at', ',d')} concurrent requests"
    speeds = _by(BATCH_SIZES, plan.tokens_per_s, "at batch", ",.0f")
    yield f"  tokens/s, upper limit  {speeds} (bandwidth, {ROOFLINE_CONTEXT} tokens of context, all requests together)"
    config = plan.recommended
    yield (
        f"  config.pbtxt           max_batch_size: {config.max_batch_size},"
        f" max_num_tokens: {config.max_num_tokens}, max_seq_len: {config.max_seq_len},"
        f" tensor_parallel_size: {config.tensor_parallel_size},"
        f" kv_cache_free_gpu_mem_fraction: {config.kv_cache_free_gpu_mem_fraction}"
    )


def _by(keys: tuple[int, ...], values: dict[int, int] | dict[int, float], joint: str, form: str) -> str:
    return ", ".join(f"{values[key]:{form}} {joint} {key}" for key in keys)
