"""The compiler of constraints and its worker process."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from frontend.errors import CompilerBusy, InvalidRequest, QueueFull
from frontend.guided_decoding import (
    Choice,
    Constraint,
    Grammar,
    Guide,
    GuideCompiler,
    GuideLimits,
    JsonObject,
    JsonSchema,
    OneOf,
    Regex,
    Repeated,
    Sequence,
    Text,
    Vocabulary,
    compiler,
    to_ebnf_text,
)
from frontend.local.child_process import children_of
from frontend.text.tokenizer import Tokenizer
from tests.frontend.guided_decoding.random_model import matching

BYTES = Vocabulary(token_bytes={byte: bytes([byte]) for byte in range(1, 256)}, stop_token_ids=(256,))
DIGITS = Regex(pattern="[0-9]{3}", param="guided_regex")
ENDLESS = JsonSchema(schema={"enum": ["a" * 40 + "b"], "pattern": "^(a+)+$"}, param="response_format")
"""Values of an enum are filtered with Python's re, which takes exponential time for this pattern."""
AMBIGUOUS = Grammar(ebnf='root ::= (("a"*)*)*', param="guided_grammar")
"""Compiles at once, and then takes seconds for each token."""


def run(
    scenario: Callable[[GuideCompiler], Awaitable[None]],
    limits: GuideLimits | None = None,
    vocabulary: Vocabulary = BYTES,
    num_workers: int = 2,
) -> None:
    async def with_compiler() -> None:
        guide_compiler = GuideCompiler(vocabulary, limits, num_workers)
        try:
            await scenario(guide_compiler)
        finally:
            await guide_compiler.close()
        assert worker_pids() == []

    asyncio.run(with_compiler())


OTHERS: set[int] = set()
"""Worker processes that other tests of this process have left running."""


@pytest.fixture(autouse=True)
def _ignore_other_workers() -> None:
    OTHERS.clear()
    OTHERS.update(worker_pids())


def worker_pids() -> list[int]:
    """The worker processes that this test has started."""
    found = []
    for pid in children_of(os.getpid()):
        if b"frontend.guided_decoding.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    return [pid for pid in found if pid not in OTHERS]


def test_the_grammar_that_compiled_is_returned() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        assert worker_pids() == []
        assert (await guide_compiler.compile(DIGITS)).ebnf == to_ebnf_text(DIGITS)
        own = Grammar(ebnf='root ::= "yes" | "no"', param="guided_grammar")
        assert (await guide_compiler.compile(own)).ebnf == own.ebnf

    run(scenario)


def test_mixtrals_vocabulary(mixtral_tokenizer_dir: Path) -> None:
    tokenizer = Tokenizer((mixtral_tokenizer_dir / "tokenizer.json").read_bytes())

    async def scenario(guide_compiler: GuideCompiler) -> None:
        assert await guide_compiler.compile(JsonObject(param="response_format"))

    run(
        scenario,
        vocabulary=Vocabulary(token_bytes=dict(tokenizer.bytes_of(skip_special_tokens=True)), stop_token_ids=(2,)),
    )


def test_equal_constraints_are_compiled_once() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        asked = []
        compile_one = guide_compiler._compile

        async def counted(constraint: Constraint, caller: str) -> Guide:
            asked.append(constraint)
            return await compile_one(constraint, caller)

        guide_compiler._compile = counted  # type: ignore[method-assign]
        assert len(set(await asyncio.gather(*(guide_compiler.compile(DIGITS) for _ in range(5))))) == 1
        await guide_compiler.compile(DIGITS)
        assert asked == [DIGITS]

    run(scenario)


def test_cancelling_one_caller_leaves_the_compilation_to_the_others() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        first, second = (asyncio.create_task(guide_compiler.compile(DIGITS)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).ebnf == to_ebnf_text(DIGITS)

    run(scenario)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (Grammar(ebnf="root ::= x", param="guided_grammar"), "`guided_grammar`: is no grammar that xgrammar compiles"),
        (
            Grammar(ebnf='root ::= "a"\nstraße ::= "b"', param="guided_grammar"),
            "`guided_grammar`: is no grammar that xgrammar compiles: EBNF lexer error at line 2, column 5: Unexpected",
        ),
        (JsonSchema(schema={"not": {}}, param="tools.0"), "`tools.0` at #: `not` is not supported"),
        (Choice(choices=(), param="guided_choice"), "`guided_choice`: takes at least one string"),
        (Choice(choices=("x" * 300_000,), param="guided_choice"), "`guided_choice` has more than 262144 bytes"),
        (AMBIGUOUS, "`guided_grammar`: is too ambiguous"),
    ],
)
def test_an_invalid_constraint_is_refused_with_its_field_and_the_next_one_compiles(
    constraint: Grammar, message: str
) -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await guide_compiler.compile(constraint)
        assert message in caught.value.message
        assert caught.value.param == constraint.param
        assert await guide_compiler.compile(DIGITS)

    run(scenario)


def test_a_constraint_that_takes_too_long_is_refused_and_the_next_one_compiles() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        with pytest.raises(InvalidRequest, match=r"`response_format` takes more than 0.5 s to compile") as caught:
            await guide_compiler.compile(ENDLESS)
        assert caught.value.param == "response_format"
        assert await guide_compiler.compile(DIGITS)

    run(scenario, GuideLimits(cpu_s=0.5))


def test_a_worker_that_dies_fails_one_constraint() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        await guide_compiler.compile(DIGITS)
        doomed = asyncio.create_task(guide_compiler.compile(ENDLESS))
        await asyncio.sleep(0.1)
        (pid,) = worker_pids()
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(InvalidRequest, match="`response_format` takes more memory than there is"):
            await doomed
        assert await guide_compiler.compile(JsonObject(param="response_format"))

    run(scenario)


def test_memory_of_the_worker_is_limited() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        (pid,) = worker_pids() or [await _started(guide_compiler)]
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert str(768 * 1024**2) in next(line for line in limits.splitlines() if line.startswith("Max address space"))

    async def _started(guide_compiler: GuideCompiler) -> int:
        await guide_compiler.compile(DIGITS)
        return worker_pids()[0]

    run(scenario, GuideLimits(memory_bytes=768 * 1024**2))


def test_constraints_of_one_caller_beyond_its_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "MAX_WAITING_OF_CALLER", 1)

    async def scenario(guide_compiler: GuideCompiler) -> None:
        first = asyncio.create_task(guide_compiler.compile(DIGITS, "a"))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as caught:
            await guide_compiler.compile(JsonObject(param="response_format"), "a")
        assert caught.value.status == 429
        assert await guide_compiler.compile(JsonObject(param="response_format"), "b")
        assert await first

    run(scenario)


def test_an_overloaded_compiler_answers_503_and_when_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "MAX_WAITING", 1)

    async def scenario(guide_compiler: GuideCompiler) -> None:
        first = asyncio.create_task(guide_compiler.compile(DIGITS, "a"))
        await asyncio.sleep(0)
        with pytest.raises(CompilerBusy) as caught:
            await guide_compiler.compile(JsonObject(param="response_format"), "b")
        assert caught.value.status == 503
        assert int(caught.value.headers["retry-after"]) > 0
        assert await first

    run(scenario)


def endless(number: int) -> JsonSchema:
    return JsonSchema(schema={"enum": [f"{number}" + "a" * 40 + "b"], "pattern": "^[0-9]*(a+)+$"}, param="tools")


def test_slow_constraints_of_one_caller_leave_a_worker_to_the_others() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        slow = [asyncio.create_task(guide_compiler.compile(endless(number), "a")) for number in range(12)]
        await asyncio.sleep(0)
        assert (await guide_compiler.compile(DIGITS, "b")).ebnf == to_ebnf_text(DIGITS)
        assert not any(task.done() for task in slow)

    run(scenario, GuideLimits(cpu_s=60))


def test_callers_take_turns_where_all_have_slow_constraints() -> None:
    """With one worker: the second constraint of a caller comes after the first one of each other caller."""

    async def scenario(guide_compiler: GuideCompiler) -> None:
        finished: list[str] = []

        async def one(text: str, caller: str) -> None:
            await guide_compiler.compile(Choice(choices=(text,), param="guided_choice"), caller)
            finished.append(text)

        await asyncio.gather(*(one(f"{caller}{number}", caller) for caller in "abc" for number in range(2)))
        assert finished == ["a0", "b0", "c0", "a1", "b1", "c1"]

    run(scenario, num_workers=1)


def test_a_compilation_ends_with_the_last_request_that_awaits_it() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        await guide_compiler.compile(DIGITS)
        before = worker_pids()
        requests = [asyncio.create_task(guide_compiler.compile(ENDLESS)) for _ in range(2)]
        await asyncio.sleep(0.05)
        requests[0].cancel()
        await asyncio.sleep(0.05)
        assert worker_pids() == before
        requests[1].cancel()
        while worker_pids():
            await asyncio.sleep(0.01)
        assert await guide_compiler.compile(JsonObject(param="response_format"))

    run(scenario, GuideLimits(cpu_s=60))


def test_the_time_limit_counts_processor_time_only() -> None:
    """A worker that stands still, as on a loaded machine, loses nothing of its time."""

    async def scenario(guide_compiler: GuideCompiler) -> None:
        await guide_compiler.compile(DIGITS)
        (pid,) = worker_pids()
        os.kill(pid, signal.SIGSTOP)
        stopped = asyncio.create_task(guide_compiler.compile(JsonObject(param="response_format")))
        await asyncio.sleep(0.8)
        os.kill(pid, signal.SIGCONT)
        assert await stopped

    run(scenario, GuideLimits(cpu_s=0.5))


def test_close_cancels_the_running_compilation() -> None:
    async def scenario(guide_compiler: GuideCompiler) -> None:
        await guide_compiler.compile(DIGITS)
        waiting = asyncio.create_task(guide_compiler.compile(ENDLESS))
        await asyncio.sleep(0.05)
        await guide_compiler.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(scenario)


def test_composed_constraints() -> None:
    names = (Text("f"), Choice(choices=("g", "h"), param="tools"))
    call = Sequence((Text('{"name": "'), OneOf(names), Text('", "arguments": '), JsonObject(param="tools"), Text("}")))
    calls = Sequence((Text("["), Repeated(part=call, separator=", ", minimum=1, maximum=2), Text("]")))
    constraint = OneOf((calls, Regex(pattern=r"[^\[][\s\S]*", param="tools")))
    one = '{"name": "h", "arguments": {"x": [1]}}'
    wrong = ["[]", f"[{one}, {one}, {one}]", '[{"name": "i", "arguments": {}}]', f"[{one}", ""]
    right = [f"[{one}]", f"[{one}, {one}]", "Hello [1]!\n"]
    assert matching(to_ebnf_text(constraint), wrong + right) == right
