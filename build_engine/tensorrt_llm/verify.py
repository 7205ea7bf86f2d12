"""Verify that a converted checkpoint holds the source's weights: all tensors of all layers, experts and ranks.

If a known mistake explains a difference, the message names it: experts exchanged, gate and up exchanged, the layout of
another GPU.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from build_engine.awq_linear import AwqLinear, read_linear, side_by_side
from build_engine.checkpoint import Checkpoint
from build_engine.errors import ConversionError
from build_engine.mixtral import MixtralConfig

from .compare import Candidates, explain, grid_difference, value_difference
from .gpus import is_interleaved
from .layout import ROTARY_FREQUENCIES, ROTARY_TABLE, rotary_frequencies
from .trtllm_checkpoint import PackedLinear, RankFile, check_config, open_ranks

_GATE, _UP, _DOWN = "w1", "w3", "w2"
_ROTARY_TOLERANCE = 2.0**-22
"""Absolute, for cosines and sines, and per position: a float32 angle is off by up to 2**-23 of its size, in radians."""
_MAX_WORKERS = 8
"""Experts that are compared at once. Each takes about 0.4 GB of memory for a Mixtral-8x7B."""


def verify(checkpoint: Checkpoint, directory: Path, tp_size: int, sm: int, advance: Callable[[int], None]) -> list[str]:
    """Raises ConversionError for the first tensor that is not the source's, as a GPU of architecture `sm` reads it.

    `advance` is called with 1 after each layer. Returns warnings of `check_config`.
    """
    warnings = check_config(directory, checkpoint.config, tp_size)
    workers = min(len(os.sched_getaffinity(0)), _MAX_WORKERS)
    with open_ranks(directory, checkpoint.config, tp_size) as ranks, ThreadPoolExecutor(workers) as pool:
        verifier = _Verifier(checkpoint, ranks, sm)
        verifier.check_plain_tensors()
        verifier.check_constants()
        for layer in range(checkpoint.config.num_hidden_layers):
            _run_all(pool, verifier.layer_checks(layer))
            advance(1)
    return warnings


def _run_all(pool: ThreadPoolExecutor, checks: Iterable[Callable[[], None]]) -> None:
    """Run the checks at once; the first error, in their order, is raised. NumPy computes without Python's lock."""
    for _ in pool.map(lambda check: check(), checks):
        pass


class _Verifier:
    """Compares the source with the files of all ranks."""

    def __init__(self, checkpoint: Checkpoint, ranks: list[RankFile], sm: int) -> None:
        self._checkpoint = checkpoint
        self._ranks = ranks
        self._sm = sm

    def check_plain_tensors(self) -> None:
        for name, source, dtype in _plain_tensors(self._checkpoint.config):
            expected = self._read_plain(source, dtype)
            for rank, file in enumerate(self._ranks):
                part = _rows_of_rank(expected, rank, len(self._ranks)) if name == "lm_head.weight" else expected
                if not np.array_equal(file.tensor(name), part):
                    _refuse(rank, name, "is not the source's " + source)

    def check_constants(self) -> None:
        """Attention uses the file's rotary tables, if it has them. A wrong base would show only in long answers."""
        config = self._checkpoint.config
        frequencies = rotary_frequencies(config)
        positions = config.max_position_embeddings
        angles = np.outer(np.arange(positions), frequencies)
        table = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(1, -1)
        for name, expected, tolerance in (
            (ROTARY_FREQUENCIES, frequencies, 0),
            (ROTARY_TABLE, table, _ROTARY_TOLERANCE * positions),
        ):
            for rank, file in enumerate(self._ranks):
                if name in file.names and not np.allclose(file.tensor(name), expected, rtol=1e-5, atol=tolerance):
                    _refuse(rank, name, f"is not of rope_theta {config.rope_theta}")

    def layer_checks(self, layer: int) -> list[Callable[[], None]]:
        """The checks of a layer's quantised linears. They share nothing, so they may run at the same time."""
        experts = range(self._checkpoint.config.num_local_experts)
        return [partial(self._check_attention, layer), *(partial(self._check_expert, layer, one) for one in experts)]

    def _check_attention(self, layer: int) -> None:
        source, target = f"model.layers.{layer}.self_attn", f"transformer.layers.{layer}.attention"
        q, k, v, o = (read_linear(self._checkpoint, f"{source}.{kind}_proj") for kind in "qkvo")
        for rank, file in enumerate(self._ranks):
            parts = [linear.column_part(rank, len(self._ranks)) for linear in (q, k, v)]
            dense = o.row_part(rank, len(self._ranks))
            for name, linear in ((f"{target}.qkv", side_by_side(parts)), (f"{target}.dense", dense)):
                self._check(rank, name, file.linear(name), linear, self._attention_mistakes(linear), expert=None)

    def _check_expert(self, layer: int, expert: int) -> None:
        linears = {kind: self._read_expert(layer, expert, kind) for kind in (_GATE, _UP, _DOWN)}
        name = f"transformer.layers.{layer}.mlp"
        for rank, file in enumerate(self._ranks):
            fc = file.linear(f"{name}.fc", expert)
            fc_mistakes = self._fc_mistakes(linears, layer, expert, rank)
            self._check(rank, f"{name}.fc", fc, self._fc(linears, rank), fc_mistakes, expert)
            proj = file.linear(f"{name}.proj", expert)
            proj_mistakes = self._proj_mistakes(layer, expert, rank)
            self._check(rank, f"{name}.proj", proj, self._proj(linears, rank), proj_mistakes, expert)

    def _check(
        self, rank: int, name: str, found: PackedLinear, source: AwqLinear, mistakes: Candidates, expert: int | None
    ) -> None:
        interleaved = is_interleaved(self._sm, expert=expert is not None)
        place = name if expert is None else f"{name} expert {expert}"
        if difference := value_difference(found, source, interleaved=interleaved):
            _refuse(rank, place, explain(found, mistakes) or difference)
        if difference := grid_difference(found, source):
            _refuse(rank, place, difference)

    def _attention_mistakes(self, source: AwqLinear) -> Candidates:
        """The layout of the other kind of GPU."""
        interleaved = is_interleaved(self._sm, expert=False)
        other = "SM 90" if interleaved else "GPUs before SM 90"
        yield f"is laid out for {other}, not for this GPU's SM {self._sm}", source, not interleaved

    def _fc_mistakes(self, linears: dict[str, AwqLinear], layer: int, expert: int, rank: int) -> Candidates:
        swapped = {_UP: linears[_GATE], _GATE: linears[_UP]}
        yield "has gate (w1) before up (w3); accepted: up first", self._fc(swapped, rank), True
        for other in self._others(expert):
            kinds = {kind: self._read_expert(layer, other, kind) for kind in (_UP, _GATE)}
            yield f"holds expert {other} of the source", self._fc(kinds, rank), True

    def _proj_mistakes(self, layer: int, expert: int, rank: int) -> Candidates:
        for other in self._others(expert):
            down = {_DOWN: self._read_expert(layer, other, _DOWN)}
            yield f"holds expert {other} of the source", self._proj(down, rank), True

    def _fc(self, linears: dict[str, AwqLinear], rank: int) -> AwqLinear:
        """Up before gate: TensorRT-LLM applies the activation to the second half."""
        return side_by_side([linears[kind].column_part(rank, len(self._ranks)) for kind in (_UP, _GATE)])

    def _proj(self, linears: dict[str, AwqLinear], rank: int) -> AwqLinear:
        return linears[_DOWN].row_part(rank, len(self._ranks))

    def _others(self, expert: int) -> Iterator[int]:
        return (other for other in range(self._checkpoint.config.num_local_experts) if other != expert)

    def _read_plain(self, name: str, dtype: type[np.floating[Any]]) -> NDArray[Any]:
        """A tensor that is not quantised. The converter casts it once, from the dtype of its file."""
        if dtype is np.float16:
            return self._checkpoint.tensor(name)
        return self._checkpoint.stored_tensor(name).astype(dtype)

    def _read_expert(self, layer: int, expert: int, kind: str) -> AwqLinear:
        return read_linear(self._checkpoint, f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{kind}")


def _plain_tensors(config: MixtralConfig) -> Iterator[tuple[str, str, type[np.floating[Any]]]]:
    """(name, source name, dtype) of what is not quantised."""
    yield "transformer.vocab_embedding.weight", "model.embed_tokens.weight", np.float16
    yield "transformer.ln_f.weight", "model.norm.weight", np.float16
    yield "lm_head.weight", "lm_head.weight", np.float16
    for layer in range(config.num_hidden_layers):
        source, target = f"model.layers.{layer}", f"transformer.layers.{layer}"
        yield f"{target}.input_layernorm.weight", f"{source}.input_layernorm.weight", np.float16
        yield f"{target}.post_layernorm.weight", f"{source}.post_attention_layernorm.weight", np.float16
        # TensorRT-LLM routes in float32, while the rest is float16.
        yield f"{target}.mlp.router.weight", f"{source}.block_sparse_moe.gate.weight", np.float32


def _rows_of_rank(tensor: NDArray[Any], rank: int, tp_size: int) -> NDArray[Any]:
    """A rank's rows of a tensor that is padded with zeros to a multiple of `tp_size` rows."""
    padded = np.pad(tensor, ((0, -len(tensor) % tp_size), (0, 0)))
    return np.split(padded, tp_size)[rank]


def _refuse(rank: int, place: str, problem: str) -> NoReturn:
    raise ConversionError(f"rank{rank}.safetensors: {place} {problem}")
