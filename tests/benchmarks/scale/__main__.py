"""What 1,000 GPUs serve, by simulation: replicas, cost per million tokens, and what is full first.

    python -m tests.benchmarks.scale [--gpus 1000] [--price l40s=1.40] [--requests 6000] [CHECKPOINT]

Each replica is one GPU with the limits of `make limits`, and each step takes what `make plan` expects. Nothing of this
was measured on a GPU. CHECKPOINT is a directory with a Mixtral's config.json; without one it is Mixtral-8x7B.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from build_engine.mixtral import MixtralConfig, to_mixtral_config
from build_engine.tensorrt_llm.gpus import GPUS

from .fleet import ENGINE_BYTES, FRONTEND_CPU_S_PER_TOKEN, Needs, restart_s
from .loads import LOADS, mean_tokens
from .replica import Capacity, capacity, engine_of

PRICES = {"h100-80g": 4.76, "a100-80g": 2.45, "l40s": 1.40}
"""US dollars an hour: RunPod on demand, March 2026, deploybase.ai/articles/runpod-gpu-pricing. Yours differ."""

MIXTRAL_8X7B: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
    "rope_theta": 1e6, "hidden_act": "silu", "sliding_window": None, "tie_word_embeddings": False,
    "torch_dtype": "float16", "bos_token_id": 1, "eos_token_id": 2,
    "quantization_config": {
        "quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm",
    },
}  # fmt: skip
"""config.json of Mixtral-8x7B-Instruct-v0.1 as AutoAWQ quantises it."""

Found = Mapping[tuple[str, str], Capacity]


def simulate_all(config: MixtralConfig, gpus: Mapping[str, float], count: int) -> Found:
    """The capacity of a replica, by the names of its GPU and of the load."""
    found = {}
    for gpu in gpus:
        for load in LOADS:
            engine = engine_of(config, GPUS[gpu], 1, load.limits)
            found[gpu, load.name] = capacity(engine, load, mean_tokens(load)[1], count)
    return found


def loads_table() -> list[str]:
    """What the loads are."""
    lines = ["| load | prompt | answer | 99 of 100 get | limits |", "|---|---|---|---|---|"]
    for load in LOADS:
        prompts, answers = mean_tokens(load)
        promise = "no promise"
        if load.promise is not None:
            promise = (
                f"first token in {load.promise.first_token_s:g} s, then {load.promise.per_token_s * 1000:g} ms each"
            )
        lines.append(f"| {load.name} | {prompts:,.0f} | {answers:,.0f} | {promise} | `{load.limits}` |")
    return lines


def capacity_table(found: Found, prices: Mapping[str, float], num_gpus: int) -> list[str]:
    """A line for each GPU and load. Costs are those of the GPUs alone, all of them busy."""
    lines = [
        f"| GPU, $ an hour | load | one replica: requests/s | tokens/s | batch | ends at | {num_gpus:,}: requests/s"
        " | million tokens/s | replicas for 100,000 tokens/s | $ per million tokens of answers | of both |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (gpu, name), one in found.items():
        head = f"| {gpu}, {prices[gpu]:.2f} | {name}"
        if one.tokens_per_s == 0:
            lines.append(f"{head} | 0 | 0 | | {one.bound} | | | | | |")
            continue
        prompts, answers = mean_tokens(next(load for load in LOADS if load.name == name))
        cost = prices[gpu] / 3600 / one.tokens_per_s * 1e6
        lines.append(
            f"{head} | {one.requests_per_s:.2f} | {one.tokens_per_s:,.0f} | {one.largest_batch} | {one.bound}"
            f" | {one.requests_per_s * num_gpus:,.0f} | {one.tokens_per_s * num_gpus / 1e6:.2f}"
            f" | {-(-100_000 // one.tokens_per_s):,.0f} | {cost:.2f} | {cost * answers / (prompts + answers):.2f} |"
        )
    return lines


def needs_table(found: Found, num_gpus: int) -> list[str]:
    """What the fleet needs at the load that generates most."""
    lines = [
        "| GPU | frontend, cores each | HAProxy, cores | network, Gb/s | hours between failures |",
        "|---|---|---|---|---|",
    ]
    for gpu in dict.fromkeys(gpu for gpu, _ in found):
        most = max(one.tokens_per_s for (name, _), one in found.items() if name == gpu)
        needs = Needs(num_gpus, most * num_gpus)
        lines.append(
            f"| {gpu} | {needs.frontend_cores:.2f} | {needs.balancer_cores:.0f} | {needs.gigabits_per_s:.1f}"
            f" | {needs.hours_between_failures:.0f} |"
        )
    return lines


def restart_table(num_gpus: int) -> list[str]:
    """Hours of a rolling restart, by how many replicas start together and how fast their storage is."""
    speeds = (1e9, 10e9, 100e9)
    lines = ["| at a time | " + " | ".join(f"{speed / 1e9:g} GB/s" for speed in speeds) + " |", "|---|---|---|---|"]
    for share in (0.01, 0.05, 0.1):
        at_a_time = max(1, round(share * num_gpus))
        hours = (restart_s(num_gpus, at_a_time, speed) / 3600 for speed in speeds)
        lines.append(f"| {at_a_time} | " + " | ".join(f"{value:.1f} h" for value in hours) + " |")
    return lines


def _price(text: str) -> tuple[str, float]:
    gpu, _, price = text.partition("=")
    try:
        value = float(price)
    except ValueError:
        value = 0.0
    if gpu not in GPUS or value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: GPU=DOLLARS with one of {', '.join(GPUS)}")
    return gpu, value


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale")
    parser.add_argument("checkpoint", nargs="?", type=Path, help="directory with config.json (default: Mixtral-8x7B)")
    parser.add_argument("--gpus", type=int, default=1000, help="how many, each a replica (default: %(default)s)")
    parser.add_argument("--price", type=_price, action="append", help="GPU=DOLLARS an hour; repeat it for several")
    parser.add_argument("--requests", type=int, default=6000, help="simulated each time (default: %(default)s)")
    arguments = parser.parse_args()
    file = arguments.checkpoint and arguments.checkpoint / "config.json"
    config = to_mixtral_config(json.loads(file.read_text()) if file else MIXTRAL_8X7B)
    prices = dict(arguments.price or PRICES.items())
    found = simulate_all(config, prices, arguments.requests)
    tables = [loads_table(), capacity_table(found, prices, arguments.gpus)]
    tables += [needs_table(found, arguments.gpus), restart_table(arguments.gpus)]
    print("\n\n".join("\n".join(table) for table in tables))
    full = 1 / FRONTEND_CPU_S_PER_TOKEN
    print(f"\nA frontend is full at {full:,.0f} tokens/s; an engine is {ENGINE_BYTES / 1e9:.1f} GB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
