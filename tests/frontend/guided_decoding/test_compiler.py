"""The compiler and the process it may lose."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from frontend.errors import InvalidRequest, QueueFull
from frontend.guided_decoding import (
    Choice,
    Grammar,
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
# Python's re, which filters the values of an enum, takes ages for it.
ENDLESS = JsonSchema(schema={"enum": ["a" * 40 + "b"], "pattern": "^(a+)+$"}, param="response_format")
AMBIGUOUS = Grammar(ebnf='root ::= (("a"*)*)*', param="guided_grammar")


def run(
    scenario: Callable[[GuideCompiler], Awaitable[None]],
    limits: GuideLimits | None = None,
    vocabulary: Vocabulary = BYTES,
) -> None:
    async def with_compiler() -> None:
        guides = GuideCompiler(vocabulary, limits)
        try:
            await scenario(guides)
        finally:
            await guides.close()
        assert worker_pids() == []

    asyncio.run(with_compiler())


OTHERS: set[int] = set()
"""Workers of frontends that other tests have left running in this process."""


@pytest.fixture(autouse=True)
def _ours_only() -> None:
    OTHERS.clear()
    OTHERS.update(worker_pids())


def worker_pids() -> list[int]:
    """The workers of this process, but for those of others."""
    found = []
    for pid in children_of(os.getpid()):
        if b"frontend.guided_decoding.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    return [pid for pid in found if pid not in OTHERS]


def test_what_is_compiled_is_what_is_sent() -> None:
    async def scenario(guides: GuideCompiler) -> None:
        assert worker_pids() == []
        assert await guides.compile(DIGITS) == to_ebnf_text(DIGITS)
        own = Grammar(ebnf='root ::= "yes" | "no"', param="guided_grammar")
        assert await guides.compile(own) == own.ebnf

    run(scenario)


def test_a_real_vocabulary(mixtral_tokenizer_dir: Path) -> None:
    tokenizer = Tokenizer((mixtral_tokenizer_dir / "tokenizer.json").read_bytes())

    async def scenario(guides: GuideCompiler) -> None:
        assert await guides.compile(JsonObject(param="response_format"))

    run(
        scenario,
        vocabulary=Vocabulary(token_bytes=dict(tokenizer.bytes_of(skip_special_tokens=True)), stop_token_ids=(2,)),
    )


def test_one_guide_is_compiled_once_for_all_who_ask() -> None:
    async def scenario(guides: GuideCompiler) -> None:
        asked = []
        ask = guides._ask

        async def counted(guide: object) -> dict[str, str]:
            asked.append(guide)
            return await ask(guide)  # type: ignore[arg-type]

        guides._ask = counted  # type: ignore[method-assign]
        assert len(set(await asyncio.gather(*(guides.compile(DIGITS) for _ in range(5))))) == 1
        await guides.compile(DIGITS)
        assert asked == [DIGITS]

    run(scenario)


def test_who_leaves_does_not_take_the_answer_with_them() -> None:
    async def scenario(guides: GuideCompiler) -> None:
        first, second = (asyncio.create_task(guides.compile(DIGITS)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == to_ebnf_text(DIGITS)

    run(scenario)


@pytest.mark.parametrize(
    ("guide", "message"),
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
def test_a_wrong_guide_is_refused_by_its_field_and_the_next_one_compiles(guide: Grammar, message: str) -> None:
    async def scenario(guides: GuideCompiler) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await guides.compile(guide)
        assert message in caught.value.message
        assert caught.value.param == guide.param
        assert await guides.compile(DIGITS)

    run(scenario)


def test_a_guide_that_takes_too_long_is_refused_and_the_next_one_compiles() -> None:
    async def scenario(guides: GuideCompiler) -> None:
        with pytest.raises(InvalidRequest, match=r"`response_format` takes more than 0.5 s to compile") as caught:
            await guides.compile(ENDLESS)
        assert caught.value.param == "response_format"
        assert await guides.compile(DIGITS)

    run(scenario, GuideLimits(time_s=0.5))


def test_a_worker_that_dies_costs_one_guide() -> None:
    async def scenario(guides: GuideCompiler) -> None:
        await guides.compile(DIGITS)
        doomed = asyncio.create_task(guides.compile(ENDLESS))
        await asyncio.sleep(0.1)
        (pid,) = worker_pids()
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(InvalidRequest, match="`response_format` takes more memory than there is"):
            await doomed
        assert await guides.compile(JsonObject(param="response_format"))

    run(scenario)


def test_memory_is_limited() -> None:
    async def scenario(guides: GuideCompiler) -> None:
        (pid,) = worker_pids() or [await _started(guides)]
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert str(768 * 1024**2) in next(line for line in limits.splitlines() if line.startswith("Max address space"))

    async def _started(guides: GuideCompiler) -> int:
        await guides.compile(DIGITS)
        return worker_pids()[0]

    run(scenario, GuideLimits(memory_bytes=768 * 1024**2))


def test_no_more_may_wait_than_can_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "MAX_WAITING", 1)

    async def scenario(guides: GuideCompiler) -> None:
        first = asyncio.create_task(guides.compile(DIGITS))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await guides.compile(JsonObject(param="response_format"))
        assert await first

    run(scenario)


def test_closing_ends_what_is_running() -> None:
    async def scenario(guides: GuideCompiler) -> None:
        await guides.compile(DIGITS)
        waiting = asyncio.create_task(guides.compile(ENDLESS))
        await asyncio.sleep(0.05)
        await guides.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(scenario)


def test_parts_are_put_together() -> None:
    names = (Text("f"), Choice(choices=("g", "h"), param="tools"))
    call = Sequence((Text('{"name": "'), OneOf(names), Text('", "arguments": '), JsonObject(param="tools"), Text("}")))
    calls = Sequence((Text("["), Repeated(part=call, separator=", ", minimum=1, maximum=2), Text("]")))
    guide = OneOf((calls, Regex(pattern=r"[^\[][\s\S]*", param="tools")))
    one = '{"name": "h", "arguments": {"x": [1]}}'
    wrong = ["[]", f"[{one}, {one}, {one}]", '[{"name": "i", "arguments": {}}]', f"[{one}", ""]
    right = [f"[{one}]", f"[{one}, {one}]", "Hello [1]!\n"]
    assert matching(to_ebnf_text(guide), wrong + right) == right
