"""One model on 1, 2, 4 or 8 equal GPUs: what fits, how fast it can be, and which limits follow."""

from dataclasses import dataclass

from build_engine.errors import HostError
from build_engine.mixtral import MixtralConfig
from build_engine.model_config import Limits

from .gpus import Gpu
from .layout import split_problem
from .memory import GIB, RUNTIME_BYTES, kv_tokens, longest_sequence, weight_bytes
from .profiles import PROFILES, Profile, ProfileLimits, profile_limits
from .speed import CONTEXT, Speed, speed

TP_SIZES = (1, 2, 4, 8)
BATCH_SIZES = (1, 8, 32, 128)
"""Numbers of concurrent requests that the plan gives the longest sequence and the speed for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One model on `tp_size` equal GPUs; bytes are per GPU, keys are numbers of requests and names of profiles.

    A batch that the KV cache does not hold has no speed. If the model does not fit, `kv_tokens` is 0, and there are no
    speeds and no profiles.
    """

    tp_size: int
    weight_bytes: int
    kv_bytes_per_token: int
    kv_tokens: int
    longest_sequences: dict[int, int]
    speeds: dict[int, Speed]
    profiles: dict[str, ProfileLimits]


def make_plan(config: MixtralConfig, gpu: Gpu, tp_size: int) -> Plan | str:
    """The plan, or why the model cannot be split among `tp_size` GPUs."""
    if problem := split_problem(config, tp_size):
        return problem
    tokens = kv_tokens(config, gpu.memory_gib, tp_size)
    profiles = {name: profile_limits(profile, config, gpu, tp_size) for name, profile in PROFILES.items()}
    return Plan(
        tp_size=tp_size,
        weight_bytes=weight_bytes(config, tp_size),
        kv_bytes_per_token=config.kv_bytes_per_token // tp_size,
        kv_tokens=tokens,
        longest_sequences={requests: longest_sequence(config, tokens, requests) for requests in BATCH_SIZES},
        speeds={batch: speed(config, gpu, tp_size, batch) for batch in BATCH_SIZES if batch * CONTEXT <= tokens},
        profiles={name: found for name, found in profiles.items() if found},
    )


def planned_limits(profile: Profile, config: MixtralConfig, gpu: Gpu, tp_size: int) -> Limits:
    """The limits of a profile. Raises HostError if the model cannot be split among the GPUs, or does not fit."""
    if problem := split_problem(config, tp_size):
        raise HostError(problem)
    found = profile_limits(profile, config, gpu, tp_size)
    if found is None:
        weights = f"{weight_bytes(config, tp_size) / GIB:.2f} GiB of weights"
        raise HostError(
            f"{gpu.name}: {weights} and {RUNTIME_BYTES / GIB:.0f} GiB for the runtime on each of {tp_size};"
            f" accepted: less than {gpu.memory_gib:g} GiB together"
        )
    return found.limits
