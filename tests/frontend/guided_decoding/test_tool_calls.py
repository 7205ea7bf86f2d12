"""With tools, an answer is text, or calls whose arguments are valid by the tool's schema; nothing else is allowed."""

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.errors import InvalidRequest
from frontend.guided_decoding import GuideLimits, Text, Vocabulary, to_ebnf_text
from frontend.guided_decoding.grammar_check import checked, compile_checked
from frontend.guided_decoding.to_ebnf import to_guide
from frontend.guided_decoding.tool_calls import tool_use_constraint
from frontend.guided_decoding.worker import _Compiler
from frontend.guided_decoding.xgrammar import RAW_VOCABULARY, CompiledGrammar, GrammarMatcher, load_core
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import NO_TOOLS, TextDelta, Tool, ToolChoice, ToolUse, collect
from tests.frontend.guided_decoding.random_model import matching

END = 256
"""The vocabulary is the 256 bytes, and the end token."""

BYTES = Vocabulary(token_bytes={code: bytes([code]) for code in range(1, END)}, stop_token_ids=(END,))

SCHEMAS: Mapping[str, Any] = {
    "clock": {"type": "object", "properties": {}},
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["°C", 'a"b', None, 3]}},
        "required": ["city"],
    },
    "plan": {
        "type": "object",
        "properties": {
            "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}, "minItems": 1, "maxItems": 3},
            "on": {"type": "string", "format": "date"},
        },
        "required": ["stops", "on"],
        "$defs": {"stop": {"properties": {"n": {"type": "integer", "minimum": 3, "maximum": 17}}, "required": ["n"]}},
    },
}
TOOLS = tuple(Tool(name=name, description=None, parameters=schema) for name, schema in SCHEMAS.items())
AUTO, REQUIRED = ToolChoice(mode="auto"), ToolChoice(mode="required")
NAMED = ToolChoice(mode="named", name="get_weather")


@cache
def compiled(mode: str, parallel: bool = True) -> CompiledGrammar:
    choice = {"auto": AUTO, "required": REQUIRED, "named": NAMED}[mode]
    constraint = tool_use_constraint(ToolUse(tools=TOOLS, choice=choice, parallel=parallel), can_guide_marker=True)
    assert constraint is not None
    core = load_core()
    vocabulary = core.TokenizerInfo(
        [*(bytes([byte]) for byte in range(END)), b""], RAW_VOCABULARY, END + 1, [END], False
    )
    text = checked(core, to_ebnf_text(constraint))
    return compile_checked(core, core.GrammarCompiler(vocabulary, 1, False, -1), text)


def matcher(mode: str, parallel: bool = True) -> GrammarMatcher:
    return load_core().GrammarMatcher(compiled(mode, parallel), None, False, 0)


def allows(answer: str, mode: str, parallel: bool = True) -> bool:
    writing = matcher(mode, parallel)
    return all(writing.accept_token(token, False) for token in (*answer.encode(), END))


CLOCK, WEATHER = '{"name": "clock", "arguments": {}}', '{"name": "get_weather", "arguments": {"city": "[x]"}}'


@pytest.mark.parametrize(
    ("mode", "answer", "allowed"),
    [
        ("auto", "", True),
        ("auto", " Guten Tag [1], ä 你好 🚀\n", True),
        ("auto", f"[TOOL_CALLS] [{CLOCK}]", True),
        ("auto", f" [TOOL_CALLS] [{CLOCK}, {WEATHER}]", True),
        ("auto", f"I look. [TOOL_CALLS] [{WEATHER}]", True),
        ("auto", f"[TOOL_CALLS][{CLOCK}]", False),
        ("auto", f"[TOOL_CALLS] [{CLOCK}] Done.", False),
        ("auto", "[TOOL_CALLS] []", False),
        ("auto", "[TOOL_CALLS]", False),
        ("auto", "[TOOL_CALLS] words", False),
        ("required", f"[{CLOCK}]", True),
        ("required", f" [{CLOCK}, {WEATHER}, {CLOCK}]", True),
        ("required", "[]", False),
        ("required", "words", False),
        ("required", '[{"name": "other", "arguments": {}}]', False),
        ("required", '[{"name": "clock", "arguments": {"x": 1}}]', False),
        ("required", '[{"name": "get_weather", "arguments": {}}]', False),
        ("required", f"[{CLOCK} ]", False),
        ("named", '{"city": "Köln"}', True),
        ("named", ' {"city": "Köln", "unit": "°C"}', True),
        ("named", "{}", False),
        ("named", f"[{CLOCK}]", False),
    ],
)
def test_answer_is_allowed_or_not(mode: str, answer: str, allowed: bool) -> None:
    assert allows(answer, mode) == allowed


@pytest.mark.parametrize(("mode", "before"), [("auto", "[TOOL_CALLS] "), ("required", "")])
def test_without_parallel_calls_there_is_exactly_one(mode: str, before: str) -> None:
    assert allows(f"{before}[{WEATHER}]", mode, parallel=False)
    assert not allows(f"{before}[{WEATHER}, {CLOCK}]", mode, parallel=False)


@given(st.lists(st.sampled_from([*"[TOL_CAS] xä[[", "[TOOL_", "CALLS", "[TOOL_CALLS"]), max_size=30).map("".join))
def test_text_without_the_marker_is_allowed(text: str) -> None:
    assert allows(text, "auto") == ("[TOOL_CALLS]" not in text)


def walk(mode: str, seed: int, begun: str, *, patience: int = 60) -> str | None:
    """An answer of random allowed bytes, which prefers to close brackets after `patience` of them; None if too long."""
    rng, writing, written = random.Random(seed), matcher(mode), bytearray(begun.encode())
    assert all(writing.accept_token(token, False) for token in written)
    mask = np.zeros(END // 32 + 1, np.int32)
    for step in range(4 * patience):
        writing.fill_next_token_bitmask(mask, 0, False)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[: END + 1]).tolist()
        closing = [token for token in allowed if token == END or chr(token) in ']}"']
        token = rng.choice(closing if closing and step > patience else allowed)
        assert writing.accept_token(token, False)
        if token == END:
            return written.decode()
        written.append(token)
    return None


@pytest.mark.parametrize(
    ("choice", "begun", "calls_at_least"),
    [(AUTO, "", 0), (AUTO, "Hm [TOOL_CALLS] [", 1), (REQUIRED, "", 1), (NAMED, "", 1)],
)
def test_calls_of_a_random_model_are_parsed_and_valid(choice: ToolChoice, begun: str, calls_at_least: int) -> None:
    answers = [answer for seed in range(30) if (answer := walk(choice.mode, seed, begun)) is not None]
    assert len(answers) > 15
    for answer in answers:
        parser = ToolCallParser(choice, lambda: "id")
        text, calls = collect(parser.feed(answer) + parser.finish())
        assert len(calls) >= calls_at_least
        assert parser.all_calls_complete == bool(calls)
        assert text == ("Hm " if begun else "" if calls_at_least else answer)
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


def test_calls_may_follow_text_in_a_constrained_answer() -> None:
    answer = f"I look. [TOOL_CALLS] [{WEATHER}]"
    parser = ToolCallParser(AUTO, lambda: "id")
    assert parser.feed(answer)[0] == TextDelta("I look. ")
    assert parser.all_calls_complete


@pytest.mark.parametrize("can_guide", [True, False])
def test_without_tools_there_is_no_constraint(can_guide: bool) -> None:
    assert tool_use_constraint(NO_TOOLS, can_guide_marker=can_guide) is None


def test_where_the_marker_is_a_special_token_only_auto_has_no_constraint() -> None:
    for choice in (REQUIRED, NAMED):
        use = ToolUse(tools=TOOLS, choice=choice)
        assert tool_use_constraint(use, can_guide_marker=False) == tool_use_constraint(use, can_guide_marker=True)
    assert tool_use_constraint(ToolUse(tools=TOOLS, choice=AUTO), can_guide_marker=False) is None


def test_strict_is_refused_where_it_cannot_be_enforced() -> None:
    strict = Tool(name="f", description=None, parameters={"type": "object"}, strict=True, param="tools[3].function")
    use = ToolUse(tools=(*TOOLS, strict), choice=AUTO)
    assert tool_use_constraint(use, can_guide_marker=True) is not None
    with pytest.raises(InvalidRequest, match="tool_choice") as caught:
        tool_use_constraint(use, can_guide_marker=False)
    assert caught.value.param == "tools[3].function.strict"


UNGUARANTEED = [{"properties": {"a": {"contains": {}}}}, {"required": 1}, {"properties": {"a": {"pattern": "a(?=b)"}}}]


def use_of(schema: dict[str, Any], mode: Any, *, strict: bool | None = None) -> ToolUse:
    """The known tools, and `f` with that schema."""
    f = Tool(name="f", description=None, parameters=schema, strict=strict, schema_param="tools[3].function.parameters")
    return ToolUse(tools=(*TOOLS, f), choice=ToolChoice(mode=mode, name="f"))


@pytest.mark.parametrize("schema", UNGUARANTEED)
@pytest.mark.parametrize("mode", ["auto", "required", "named"])
def test_schema_of_a_strict_tool_that_cannot_be_guaranteed_is_refused_by_name(
    mode: Any, schema: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_guide(tool_use_constraint(use_of(schema, mode, strict=True), can_guide_marker=True) or Text(""))
    assert caught.value.param == "tools[3].function.parameters"


@pytest.mark.parametrize("strict", [True, None])
def test_arguments_are_an_object(strict: bool | None) -> None:
    with pytest.raises(InvalidRequest, match="must be the schema of an object") as caught:
        tool_use_constraint(use_of({"type": "string"}, "required", strict=strict), can_guide_marker=True)
    assert caught.value.param == "tools[3].function.parameters"
    constraint = tool_use_constraint(use_of({"type": ["null", "object"]}, "named"), can_guide_marker=True)
    assert matching(to_ebnf_text(constraint or Text("")), ["{}", "null"]) == ["{}"]


@pytest.mark.parametrize("schema", UNGUARANTEED)
@pytest.mark.parametrize("strict", [None, False])
def test_arguments_of_a_tool_that_is_not_strict_may_be_any_object(strict: bool | None, schema: dict[str, Any]) -> None:
    constraint = tool_use_constraint(use_of(schema, "required", strict=strict), can_guide_marker=True)
    guide = to_guide(constraint or Text(""))
    assert guide.unguided_tools == ("f",)
    calls = [f'[{{"name": "f", "arguments": {arguments}}}]' for arguments in ('{"x": [1]}', "{}", "null", '{"x"}')]
    others = [f"[{WEATHER}]", '[{"name": "get_weather", "arguments": {}}]']
    assert matching(guide.ebnf, [*calls, *others]) == [*calls[:2], others[0]]


def test_a_schema_that_becomes_too_large_a_grammar_is_left_out_too() -> None:
    words = [f"{number:08}" * 4 for number in range(10_000)]
    tool = Tool(name="f", description=None, parameters={"properties": {"a": {"enum": words}}}, schema_param="x")
    worker = _Compiler(load_core(), BYTES, GuideLimits())
    for strict, answer in ((None, ("f",)), (True, None)):
        use = ToolUse(tools=(replace(tool, strict=strict),), choice=REQUIRED)
        constraint = tool_use_constraint(use, can_guide_marker=True)
        assert constraint is not None
        assert worker.answer(constraint).get("unguided_tools") == answer
