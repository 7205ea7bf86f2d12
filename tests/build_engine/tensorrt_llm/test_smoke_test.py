"""The smoke test on the double of Triton: what it prints, and each thing that must stop a build.

Most tests serve the double in this process, where they change what it does.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from build_engine.checkpoint import TOKENIZER, Checkpoint
from build_engine.errors import EngineError, RepositoryError, ToolFailed
from build_engine.tensorrt_llm.commands import Toolchain
from build_engine.tensorrt_llm.smoke_test import cancel
from build_engine.tensorrt_llm.smoke_test.answers import HOUSE, PROMPTS, check_answers, find_problem, is_known
from build_engine.tensorrt_llm.smoke_test.cancel import check_cancel, check_stop
from build_engine.tensorrt_llm.smoke_test.inputs import check_guided, check_inputs
from build_engine.tensorrt_llm.smoke_test.logits import check_logits
from build_engine.tensorrt_llm.smoke_test.model import Model
from build_engine.tensorrt_llm.smoke_test.run import SmokeTest, open_model, smoke
from tests.build_engine.tensorrt_llm.staged_engine import load_double, served, serving_of, write_config, write_engine
from tests.doubles import tensorrtllm_backend
from tests.doubles.tensorrtllm_backend import ANSWERS, Backend

Break = Callable[[str], None]


@pytest.fixture(scope="module")
def engine_dir(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("staged") / "engine", source)


@pytest.fixture(scope="module")
def smoke_test(source: Checkpoint, engine_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> SmokeTest:
    """A smoke test of an engine whose answers are known, as the double has them."""
    directory = tmp_path_factory.mktemp("smoke")
    serving = serving_of(engine_dir, directory, write_config(directory / "config.pbtxt"))
    return SmokeTest(serving=serving, checkpoint=source, judged=True)


@pytest.fixture(scope="module")
def loaded(smoke_test: SmokeTest) -> Backend:
    return load_double(smoke_test.serving)


@pytest.fixture
def model(loaded: Backend, smoke_test: SmokeTest) -> Iterator[Model]:
    """A model in the double, without requests of other tests."""
    with served(loaded.without_requests()) as client:
        yield open_model(smoke_test, client)


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Break:
    return lambda name: monkeypatch.setattr(tensorrtllm_backend, "FAULT", name)


@pytest.fixture
def ignore(monkeypatch: pytest.MonkeyPatch) -> Break:
    return lambda name: monkeypatch.setattr(tensorrtllm_backend, "IGNORED", name)


def error_of(lines: Iterator[str]) -> str:
    with pytest.raises(EngineError) as stopped:
        list(lines)
    return str(stopped.value)


def run(smoke_test: SmokeTest) -> list[str]:
    lines: list[str] = []
    smoke(smoke_test, Toolchain(), lines.append)
    return lines


@pytest.mark.usefixtures("host")
class TestRun:
    """The whole of it, with the double as a program of its own."""

    def test_says_of_each_check_what_it_saw(self, smoke_test: SmokeTest) -> None:
        started = time.monotonic()
        lines = run(smoke_test)
        assert time.monotonic() - started < 30
        beginnings = [
            "starting Triton on the engine",
            "the capital of France: 'The capital of France is Paris.', 7 tokens, mean log probability -0.50",
            "a house: 'A house is a building that people live in.",
            "a word 130 tokens earlier: 'The name of the ship was Diana.'",
            "64 tokens, twice alike for 64, at ",
            "answered with each input: embedding_bias, end_id, exclude_input_in_output, ",
            "guided decoding: 'no', ended by the grammar",
            "stop: an answer ended after ",
            "cancel: beside a closed stream, 64 tokens, alike for 64 with those alone",
            "cancel: no request is active ",
        ]
        assert len(lines) == len(beginnings)
        for line, beginning in zip(lines, beginnings, strict=True):
            assert line.startswith(f"smoke: {beginning}")

    def test_an_error_names_the_smoke_test(self, smoke_test: SmokeTest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOUBLE_FAULT", "wrong_answers")
        with pytest.raises(EngineError, match=r"^smoke: the answer about the capital of France is wrong: 'A house is"):
            run(smoke_test)

    def test_a_server_that_crashes_is_reported_as_such(
        self, smoke_test: SmokeTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOUBLE_FAULT", "dies")
        with pytest.raises(ToolFailed) as stopped:
            run(smoke_test)
        assert str(stopped.value).startswith("smoke: tritonserver ended with status 139")
        assert stopped.value.last_lines == ["Signal (11) received."]


class TestAnswers:
    def test_of_an_unknown_checkpoint_are_shown_and_not_judged(self, model: Model, fault: Break) -> None:
        fault("no_words")
        *answers, remark = check_answers(model, judged=False)
        assert [line.split(":")[0] for line in answers] == [prompt.subject for prompt in PROMPTS]
        assert remark == "answers are not judged: the right ones are known for Mixtral-8x7B-Instruct only"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("unlikely", "the answer about the capital of France has a mean log probability of -6.00; accepted: at"),
            ("no_words", "the answer about the capital of France is not words: "),
            ("repeats", "the answer about the capital of France repeats itself: "),
            ("wrong_answers", "the answer about the capital of France is wrong: "),
            ("token_out_of_range", "the engine generated token 32000; accepted: 0 to 31999"),
            ("not_finite", "the engine gave a log probability of nan; accepted: finite"),
        ],
    )
    def test_of_a_broken_engine(self, model: Model, fault: Break, name: str, message: str) -> None:
        fault(name)
        assert error_of(check_answers(model, judged=True)).startswith(message)

    def test_without_log_probabilities(self, model: Model, ignore: Break) -> None:
        ignore("return_log_probs")
        assert "the engine gave 0 log probabilities for 7 tokens" in error_of(check_answers(model, judged=False))


class TestInputs:
    def test_every_optional_input_of_the_shipped_config_is_tried(self, model: Model) -> None:
        (line,) = check_inputs(model)
        tried = line.removeprefix("answered with each input: ").split(", ")
        elsewhere = {"stop", "guided_decoding_guide", "guided_decoding_guide_type", "return_generation_logits"}
        assert {*tried, *elsewhere} == model.optional

    def test_one_that_is_not_known_is_named(self, model: Model) -> None:
        more = dataclasses.replace(model, optional=model.optional | {"lora_task_id"})
        *_, remark = check_inputs(more)
        assert remark == "inputs that were not tried: lora_task_id"

    def test_one_that_is_not_declared_is_not_tried(self, model: Model) -> None:
        fewer = dataclasses.replace(model, optional=model.optional - {"embedding_bias"})
        line, remark = check_inputs(fewer)
        assert "embedding_bias" not in line
        assert remark == "inputs that were not tried: min_tokens"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("embedding_bias", "embedding_bias: a bias of 100 for token "),
            (
                "end_id",
                "embedding_bias and end_id: with a bias of 100 for the end token the engine generated 16 tokens",
            ),
            ("min_tokens", "min_tokens and embedding_bias and end_id: with a bias of 100 for the end token the engine"),
            ("return_log_probs", "return_log_probs: the engine gave 0 log probabilities for 1 tokens"),
            ("return_perf_metrics", "return_perf_metrics: a response is without kv_cache_alloc_new_blocks, "),
            ("exclude_input_in_output", "exclude_input_in_output and streaming: the engine answered ["),
        ],
    )
    def test_one_without_its_effect(self, model: Model, ignore: Break, name: str, message: str) -> None:
        ignore(name)
        assert error_of(check_inputs(model)).startswith(message)


class TestLogits:
    @pytest.fixture
    def gathering(self, loaded: Backend, smoke_test: SmokeTest) -> Iterator[Model]:
        """An engine that was built to return its logits."""
        with served(dataclasses.replace(loaded.without_requests(), gathers_logits=True)) as client:
            yield dataclasses.replace(open_model(smoke_test, client), gathers_logits=True)

    def test_they_give_the_log_probabilities(self, gathering: Model) -> None:
        assert list(check_logits(gathering)) == ["the logits of 8 tokens give their log probabilities"]

    def test_an_answer_that_ends_by_itself_ends_without_more(self, gathering: Model) -> None:
        end_id = gathering.end_tokens.end_id
        asked = gathering.request(PROMPTS[0].text, end_id=end_id, return_generation_logits=True)
        *events, last = gathering.generate(asked).events
        assert [len(event["generation_logits"]) for event in events] == [gathering.vocab_size] * len(events)
        assert last["output_ids"] == last["generation_logits"] == []

    def test_those_of_other_tokens(self, gathering: Model, fault: Break) -> None:
        fault("other_logits")
        assert error_of(check_logits(gathering)).startswith("the logits of token 0 give it a log probability of -")

    def test_an_engine_that_gives_none(self, gathering: Model, ignore: Break) -> None:
        ignore("return_generation_logits")
        assert error_of(check_logits(gathering)) == "the engine gave 0 logits for 1 tokens; accepted: 32000 for each"

    def test_an_engine_that_was_built_without(self, model: Model) -> None:
        asked = dataclasses.replace(model, gathers_logits=True)
        assert "gather_generation_logits must be enabled" in error_of(check_logits(asked))

    def test_they_are_not_tried_where_the_config_does_not_gather_them(self, model: Model) -> None:
        assert list(check_logits(model)) == []


class TestGuidedDecoding:
    def test_an_answer_that_ends_with_its_grammar(self, model: Model) -> None:
        assert list(check_guided(model)) == ["guided decoding: 'no', ended by the grammar"]

    def test_an_answer_without_a_grammar(self, model: Model, ignore: Break) -> None:
        ignore("guided_decoding_guide_type")
        assert error_of(check_guided(model)).startswith("the engine answered 'A house is a building")

    @pytest.mark.parametrize("stop_token_ids", [[2, 5], [5]])
    def test_another_end_token_in_the_vocabulary(
        self, loaded: Backend, smoke_test: SmokeTest, stop_token_ids: list[int]
    ) -> None:
        """The engine then asks the grammar for more after its end."""
        backend = loaded.without_requests()
        backend.vocabulary = {**backend.vocabulary, "stop_token_ids": stop_token_ids}
        with served(backend) as client:
            message = error_of(check_guided(open_model(smoke_test, client)))
        assert "GrammarMatcher has terminated after accepting the stop token" in message

    def test_without_its_inputs_it_is_not_tried(self, model: Model) -> None:
        fewer = dataclasses.replace(model, optional=model.optional - {"guided_decoding_guide"})
        assert list(check_guided(fewer)) == ["guided decoding is not tried: config.pbtxt does not declare its inputs"]


class TestCancel:
    def lines(self, model: Model) -> Iterator[str]:
        request = model.request(HOUSE.text, return_log_probs=True)
        return check_cancel(model, request, model.generate(request))

    def test_a_closed_stream_ends_alone(self, model: Model) -> None:
        first, second = self.lines(model)
        assert first == "cancel: beside a closed stream, 64 tokens, alike for 64 with those alone"
        assert second.startswith("cancel: no request is active ")

    def test_an_engine_that_goes_on(self, model: Model, fault: Break, monkeypatch: pytest.MonkeyPatch) -> None:
        fault("keeps_cancelled")
        monkeypatch.setattr(cancel, "_CANCEL_TIMEOUT_S", 0.5)
        assert "1 request is active 0.5 s after the last answer; accepted: none" in error_of(self.lines(model))

    def test_an_answer_that_changes(self, model: Model, fault: Break) -> None:
        fault("not_repeatable")
        assert "the engine answers a greedy request in two ways: token 10 is" in error_of(self.lines(model))

    def test_without_metrics_it_is_not_known_whether_the_closed_one_ended(self, model: Model, fault: Break) -> None:
        fault("no_metrics")
        *_, remark = self.lines(model)
        assert remark == (
            "cancel: Triton does not report how many requests are active, so whether the closed one ended is not known"
        )

    def test_stop_ends_a_request_by_its_id(self, model: Model) -> None:
        (line,) = check_stop(model)
        assert line.startswith("stop: an answer ended after ")

    def test_stop_without_its_effect(self, model: Model, ignore: Break) -> None:
        ignore("stop")
        assert "the engine generated all 497 tokens of a request that was stopped" in error_of(check_stop(model))


def test_a_context_that_is_too_short_for_the_prompts(smoke_test: SmokeTest, model: Model, tmp_path: Path) -> None:
    serving = dataclasses.replace(smoke_test.serving, config=write_config(tmp_path / "config.pbtxt", max_seq_len=128))
    with pytest.raises(RepositoryError, match=r"max_seq_len is 128; accepted: at least 20\d, for the smoke test"):
        open_model(dataclasses.replace(smoke_test, serving=serving), model.client)


@pytest.fixture(scope="module")
def tokenizer(source: Checkpoint) -> Tokenizer:
    return Tokenizer.from_file(str(source.path / TOKENIZER))


def problem(tokenizer: Tokenizer, text: str, mean: float = -0.3) -> str | None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return find_problem(HOUSE, text, ids, mean, tokenizer.get_vocab())


@pytest.mark.parametrize(
    "text",
    [
        ANSWERS["What is a house?"],
        "A house is a building that serves as a place of residence for people or families. It typically consists of one"
        " or more floors, and contains various rooms such as bedrooms, bathrooms, a kitchen, and living areas.",
        "A home.",
    ],
)
def test_an_answer_in_words(tokenizer: Tokenizer, text: str) -> None:
    assert problem(tokenizer, text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("A boat is a vessel.", "is wrong: 'A boat is a vessel.'; accepted: one with 'house' or 'home' or 'building'"),
        ("The house is a house. " * 8, "repeats itself: "),
        ("house \ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd", "is not words: "),
        ("дом house строение жилище", "is not words: "),
        ("housequasiWINDOWhenadownFileelinocracynbsp", "is not words: "),
    ],
)
def test_an_answer_that_is_none(tokenizer: Tokenizer, text: str, message: str) -> None:
    assert (problem(tokenizer, text) or "").startswith(message)


def test_an_answer_that_the_model_finds_unlikely(tokenizer: Tokenizer) -> None:
    found = problem(tokenizer, "A house is a building.", mean=-1.6)
    assert found == "has a mean log probability of -1.60; accepted: at least -1.5"


def test_the_double_answers_the_prompts_of_the_smoke_test() -> None:
    for prompt, (part, answer) in zip(PROMPTS, ANSWERS.items(), strict=True):
        assert part in prompt.text
        assert any(word in answer.lower() for word in prompt.expected)


@pytest.fixture
def mixtral(source: Checkpoint) -> Checkpoint:
    """A checkpoint with the sizes of a Mixtral-8x7B."""
    config = dataclasses.replace(
        source.config,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        num_local_experts=8,
    )
    return dataclasses.replace(source, config=config)


def test_a_mixtral_instruct_is_known_by_its_sizes_and_its_template(mixtral: Checkpoint, source: Checkpoint) -> None:
    assert is_known(mixtral)
    assert not is_known(source)


def test_a_mixtral_with_another_template_is_not_known(mixtral: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "<|im_start|>"}')
    assert not is_known(dataclasses.replace(mixtral, path=tmp_path))
