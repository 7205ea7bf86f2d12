"""Log probabilities with alternatives, of prompts and answers, against an independent forward pass."""

import importlib.util
import itertools
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.e2e.conftest import PROMPT, ROOT, Server, events, wait_for
from tests.reference_mixtral import ReferenceMixtral
from tests.tiny_mixtral import TINY, tiny_tensors

MODEL = ROOT / "model_repository" / "openvino" / "1"


def module(name: str) -> Any:
    """A module of the Triton model, whose directory is no package."""
    spec = importlib.util.spec_from_file_location(name, MODEL / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    if name in sys.modules:
        return sys.modules[name]
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


def reference_log_probs(token_ids: list[int]) -> NDArray[np.float64]:
    """[len(token_ids), vocabulary], after each token, by the independent forward."""
    return log_softmax(ReferenceMixtral(TINY, tiny_tensors(TINY)).logits(token_ids))


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    highest = wide.max(-1, keepdims=True)
    log_probs: NDArray[np.float64] = wide - highest - np.log(np.exp(wide - highest).sum(-1, keepdims=True))
    return log_probs


@pytest.fixture(scope="module")
def engine_dir(model_repository: Path) -> Path:
    return model_repository / "openvino" / "1" / "engine"


def test_the_forward_computes_the_model_in_pieces_of_any_size(engine_dir: Path) -> None:
    token_ids = np.random.default_rng(7).integers(0, TINY["vocab_size"], 48).tolist()
    forward = module("forward").Forward(engine_dir)
    sequence, another = forward.new_sequence(), forward.new_sequence()
    pieces = [sequence.feed(token_ids[:20])]
    another.feed(token_ids[5:9])
    pieces += [sequence.feed(token_ids[20:21]), sequence.feed(token_ids[21:])]
    np.testing.assert_allclose(log_softmax(np.concatenate(pieces)), reference_log_probs(token_ids), atol=1e-3)
    whole = [token_ids[:7], token_ids[7:30], token_ids[30:31]]
    for _ in range(2):
        for ours, sequence in zip(forward.infer_once(whole), whole, strict=True):
            np.testing.assert_allclose(log_softmax(ours), reference_log_probs(sequence), atol=1e-3)


VOCABULARY = 11


def logits_after(token_ids: list[int]) -> NDArray[np.float32]:
    """Logits that differ from one another, and from place to place."""
    row: NDArray[np.float32] = np.random.default_rng(token_ids).permutation(VOCABULARY).astype(np.float32) / 2
    return row


class ScriptedForward:
    """A forward with these logits. `calls` has the numbers of tokens of each inference."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def new_sequence(self) -> "ScriptedSequence":
        return ScriptedSequence(self)

    def infer_once(self, sequences: list[list[int]]) -> list[NDArray[np.float32]]:
        self.calls.append([len(token_ids) for token_ids in sequences])
        return [
            np.stack([logits_after(token_ids[:end]) for end in range(1, len(token_ids) + 1)]) for token_ids in sequences
        ]


class ScriptedSequence:
    def __init__(self, forward: ScriptedForward) -> None:
        self.forward = forward
        self.token_ids: list[int] = []

    def feed(self, token_ids: list[int]) -> NDArray[np.float32]:
        begin = len(self.token_ids)
        self.token_ids += token_ids
        [logits] = self.forward.infer_once([self.token_ids])
        self.forward.calls[-1] = [len(token_ids)]
        return logits[begin:]


def expected(token_ids: list[int], start: int, stop: int, num_top: int) -> list[tuple[float, int, list[int]]]:
    """(log probability, rank, most likely tokens) of the tokens `start` to `stop`, from the definitions."""
    found = []
    for place in range(max(start, 1), stop):
        logits = logits_after(token_ids[:place]).tolist()
        log_prob = logits[token_ids[place]] - math.log(sum(math.exp(logit) for logit in logits))
        rank = 1 + sum(logit > logits[token_ids[place]] for logit in logits)
        found.append((log_prob, rank, sorted(range(VOCABULARY), key=lambda token: (-logits[token], token))[:num_top]))
    return found


def listed(log_probs: list[Any]) -> list[tuple[float, int, list[int]]]:
    return [
        row
        for part in log_probs
        if part is not None
        for row in zip(part.log_probs.tolist(), part.ranks.tolist(), part.top_token_ids.tolist(), strict=True)
    ]


@given(
    st.data(),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9),
    st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=3), max_size=4),
    st.sampled_from([None, 0, 3]),
    st.integers(0, 4),
)
def test_pieces_are_the_definitions_however_tokens_and_inferences_follow_one_another(
    data: st.DataObject, prompt: list[int], answers: list[list[int]], num_prompt_top: int | None, num_top: int
) -> None:
    module("log_probs")
    messages, scorer = module("scorer_messages"), module("scorer")
    scorer.PIECE_TOKENS = 4
    pieces: list[Any] = []
    forward = ScriptedForward()
    process = scorer.Scorer(forward, 100, pieces.append)
    process.take(messages.Open(7, np.array(prompt, np.int64), num_prompt_top, num_top, 50))
    for answer in answers:
        process.take(messages.Extend(7, answer, is_last=False))
        for _ in range(data.draw(st.integers(0, 3))):
            if process.has_work:
                process.work()
    process.take(messages.Extend(7, [], is_last=True))
    while process.has_work:
        process.work()
    token_ids = [*prompt, *itertools.chain(*answers)]
    assert [token_id for piece in pieces for token_id in piece.token_ids] == token_ids[len(prompt) :]
    of_prompt = [] if num_prompt_top is None else expected(token_ids, 1, len(prompt), num_prompt_top)
    of_answer = expected(token_ids, len(prompt), len(token_ids), num_top)
    for ours, theirs in (
        (listed([piece.prompt for piece in pieces]), of_prompt),
        (listed([piece.answer for piece in pieces]), of_answer),
    ):
        assert [row[1:] for row in ours] == [row[1:] for row in theirs]
        assert [row[0] for row in ours] == pytest.approx([row[0] for row in theirs], abs=1e-5)
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(len(call) == 1 and call[0] <= 4 for call in forward.calls)
    assert sum(sum(call) for call in forward.calls) <= len(token_ids)


def test_sequences_take_turns_and_wait_for_room() -> None:
    module("log_probs")
    messages, scorer = module("scorer_messages"), module("scorer")
    scorer.PIECE_TOKENS = 2
    pieces: list[Any] = []
    process = scorer.Scorer(ScriptedForward(), 20, pieces.append)
    for key in range(3):
        process.take(messages.Open(key, np.array([1, 2, 3, 4, 5], np.int64), 0, 0, 10))
        process.take(messages.Extend(key, [6], is_last=True))
    while process.has_work:
        process.work()
    assert [piece.key for piece in pieces] == [0, 1, 0, 1, 0, 1, 2, 2, 2]
    process.take(messages.Open(4, np.array([1], np.int64), 0, 0, 10))
    process.take(messages.Drop(4))
    process.take(messages.Extend(4, [6], is_last=True))
    assert not process.has_work


def test_short_sequences_that_are_complete_are_computed_together() -> None:
    module("log_probs")
    messages, scorer = module("scorer_messages"), module("scorer")
    scorer.PIECE_TOKENS = 12
    pieces: list[Any] = []
    forward = ScriptedForward()
    process = scorer.Scorer(forward, 1000, pieces.append)
    prompts = {0: [1, 2, 3], 1: [4, 5], 2: [6] * 40, 3: [7, 8, 9, 10], 4: [1, 2, 3, 4]}
    for key, prompt in prompts.items():
        process.take(messages.Open(key, np.array(prompt, np.int64), 0, 0, 50))
        process.take(messages.Extend(key, [6], is_last=True))
    process.work()
    assert forward.calls == [[3, 2, 4]]
    assert [(piece.key, piece.token_ids, piece.is_last) for piece in pieces] == [(key, [6], True) for key in (0, 1, 3)]
    for piece in pieces:
        token_ids = [*prompts[piece.key], 6]
        assert [row[1] for row in listed([piece.prompt, piece.answer])] == [
            row[1] for row in expected(token_ids, 1, len(token_ids), 0)
        ]


# ---- the Triton model ------------------------------------------------------------------------------------------------


def collected(server: Server, **inputs: Any) -> dict[str, list[Any]]:
    """Each output of a request's responses, joined."""
    joined: dict[str, list[Any]] = {}
    for response in events(server, **inputs):
        assert "error" not in response, response
        for name, value in response.items():
            joined.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return joined


@pytest.fixture(scope="module")
def answer() -> list[int]:
    """The 24 token ids that the independent forward pass generates from PROMPT."""
    return ReferenceMixtral(TINY, tiny_tensors(TINY)).greedy(PROMPT, 24)


def check(found: Mapping[str, list[Any]], prefix: str, token_ids: list[int], start: int, num_top: int) -> None:
    """The outputs with this prefix are of the tokens from `start` on."""
    rows = reference_log_probs(token_ids)[start - 1 : len(token_ids) - 1]
    chosen = token_ids[start:]
    own = [row[token_id] for row, token_id in zip(rows, chosen, strict=True)]
    assert found[prefix + "token_log_probs"] == pytest.approx(own, abs=1e-3)
    ranks = [1 + int((row > row[token_id]).sum()) for row, token_id in zip(rows, chosen, strict=True)]
    assert found[prefix + "token_ranks"] == ranks
    tops = [np.argsort(-row)[:num_top] for row in rows]
    assert found[prefix + "top_token_ids"] == [int(token_id) for top in tops for token_id in top]
    expected = [row[token_id] for row, top in zip(rows, tops, strict=True) for token_id in top]
    assert found[prefix + "top_log_probs"] == pytest.approx(expected, abs=1e-3)


def test_the_model_reports_alternatives_and_ranks_of_answer_and_prompt(server: Server, answer: list[int]) -> None:
    found = collected(
        server, request_output_len=24, end_id=-1, num_top_log_probs=5, num_prompt_top_log_probs=2,
        return_perf_metrics=True,
    )  # fmt: skip
    assert found["output_ids"] == answer
    check(found, "", [*PROMPT, *answer], len(PROMPT), 5)
    check(found, "prompt_", PROMPT, 1, 2)
    assert found["last_token_time_ns"][-1] > found["arrival_time_ns"][-1] > 0


@pytest.mark.parametrize(
    ("asked", "missing"),
    [({"num_top_log_probs": 0}, "prompt_token_ranks"), ({"num_prompt_top_log_probs": 0}, "token_ranks")],
    ids=["answer only", "prompt only"],
)
def test_only_what_was_asked_for_is_reported(
    server: Server, answer: list[int], asked: dict[str, int], missing: str
) -> None:
    found = collected(server, request_output_len=24, end_id=-1, **asked)
    assert found["output_ids"] == answer
    assert missing not in found
    prefix, token_ids, start = (
        ("", [*PROMPT, *answer], len(PROMPT)) if "num_top_log_probs" in asked else ("prompt_", PROMPT, 1)
    )
    check(found, prefix, token_ids, start, 0)


def test_each_response_has_the_log_probs_of_its_own_tokens_after_those_of_the_prompt(server: Server) -> None:
    responses = list(events(server, request_output_len=24, end_id=-1, num_top_log_probs=1, num_prompt_top_log_probs=1))
    first = next(number for number, response in enumerate(responses) if response["output_ids"])
    assert all("prompt_token_ranks" not in response for response in responses[first + 1 :])
    for response in responses[first:]:
        if response["output_ids"]:
            scored = response["token_log_probs"]
            assert len(scored if isinstance(scored, list) else [scored]) == len(response["output_ids"])


def test_an_answer_without_tokens_has_no_log_probs(server: Server, answer: list[int]) -> None:
    found = collected(server, end_id=answer[0], num_top_log_probs=1, num_prompt_top_log_probs=1)
    assert found["output_ids"] == []
    assert "token_log_probs" not in found
    check(found, "prompt_", PROMPT, 1, 1)


def test_many_requests_at_a_time_each_get_their_own(server: Server, answer: list[int]) -> None:
    prompts = [PROMPT[: 3 + number] for number in range(8)] * 2
    with ThreadPoolExecutor(len(prompts)) as threads:
        asked = {"request_output_len": 1, "num_top_log_probs": 1, "num_prompt_top_log_probs": 1}
        all_found = list(threads.map(lambda prompt: collected(server, input_ids=prompt, **asked), prompts))
    for prompt, found in zip(prompts, all_found, strict=True):
        check(found, "prompt_", prompt, 1, 1)
        check(found, "", [*prompt, *found["output_ids"]], len(prompt), 1)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"num_top_log_probs": 21}, "num_top_log_probs is 21; accepted: 0 to 20"),
        ({"num_prompt_top_log_probs": -1}, "num_prompt_top_log_probs is -1; accepted: 0 to 20"),
        ({"num_top_log_probs": 1, "streaming": False}, "accepted with streaming and without return_log_probs"),
        ({"num_top_log_probs": 1, "return_log_probs": True}, "accepted with streaming and without return_log_probs"),
    ],
)
def test_what_it_cannot_report_is_refused(server: Server, inputs: dict[str, Any], message: str) -> None:
    (response,) = events(server, **inputs)
    assert message in response["error"]


def scorers(server: Server) -> list[int]:
    """The process ids of the server's scorer: children of its children."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"scorer.py" in (entry / "cmdline").read_bytes() and server.process.pid in ancestors(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def test_the_process_has_the_lowest_priority_and_its_end_fails_only_its_requests(
    server: Server, answer: list[int]
) -> None:
    collected(server, num_top_log_probs=1)
    [pid] = scorers(server)
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    plain = events(server, request_output_len=400, end_id=-1)
    token_ids = list(next(plain)["output_ids"])
    scored = events(server, request_output_len=400, end_id=-1, num_top_log_probs=1)
    next(scored)
    os.kill(pid, signal.SIGKILL)
    *_, last = scored
    assert "the process that computes log probabilities has ended" in last["error"]
    token_ids += [token_id for response in plain for token_id in response["output_ids"]]
    assert len(token_ids) == 400
    assert collected(server, request_output_len=24, end_id=-1, num_top_log_probs=1)["output_ids"] == answer
    assert scorers(server) != [pid]


def test_a_client_that_disconnects_leaves_the_process_to_the_others(server: Server, answer: list[int]) -> None:
    for _ in range(3):
        left = events(server, input_ids=PROMPT * 37, request_output_len=8, num_prompt_top_log_probs=20)
        next(left)
        left.close()
    assert collected(server, request_output_len=24, end_id=-1, num_top_log_probs=1)["output_ids"] == answer
    wait_for(lambda: server.active() == 0, "the requests of the clients that left to leave the engine")
