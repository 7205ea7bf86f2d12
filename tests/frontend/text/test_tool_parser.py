"""Text and calls do not depend on how the answer is divided, and no text of the model is lost."""

import json
from collections.abc import Callable, Sequence
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import (
    ArgumentsDelta,
    TextDelta,
    ToolCall,
    ToolCallStart,
    ToolChoice,
    ToolEvent,
    collect,
)

AUTO, REQUIRED, NAMED = ToolChoice(mode="auto"), ToolChoice(mode="required"), ToolChoice(mode="named", name="f")
CHOICES = [AUTO, REQUIRED, NAMED]


def ids() -> Callable[[], str]:
    numbers = count()
    return lambda: f"id{next(numbers)}"


def parse(choice: ToolChoice, pieces: Sequence[str]) -> tuple[list[ToolEvent], bool]:
    parser = ToolCallParser(choice, ids())
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    return events, parser.all_calls_complete


def joined(events: Sequence[ToolEvent]) -> list[ToolEvent]:
    """The events, with adjacent deltas of the same text or call joined."""
    result: list[ToolEvent] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            result[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ArgumentsDelta) and isinstance(last, ArgumentsDelta):
            result[-1] = ArgumentsDelta(index=event.index, arguments=last.arguments + event.arguments)
        else:
            result.append(event)
    return result


def call(index: int, name: str, arguments: str) -> list[ToolEvent]:
    opened = ToolCallStart(index=index, id=f"id{index}", name=name)
    return [opened, ArgumentsDelta(index=index, arguments=arguments)] if arguments else [opened]


ANSWERS: list[tuple[str, list[ToolEvent], bool]] = [
    ("", [], False),
    (" Ein Haus", [TextDelta(" Ein Haus")], False),
    ("a [TOOL_CALL] b [TOOL", [TextDelta("a [TOOL_CALL] b [TOOL")], False),
    ("  \n", [TextDelta("  \n")], False),
    ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', call(0, "f", '{"a": 1}'), True),
    (' [TOOL_CALLS][{"name":"f","arguments":{"a":1}}] \n', call(0, "f", '{"a":1}'), True),
    (
        '[TOOL_CALLS] [{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"s": "}]\\"\\\\"}}]',
        [*call(0, "f", "{}"), *call(1, "g", '{"s": "}]\\"\\\\"}')],
        True,
    ),
    (
        'I look.\n\n[TOOL_CALLS] [{"name": "f", "arguments": {}}]',
        [TextDelta("I look.\n\n"), *call(0, "f", "{}")],
        True,
    ),
    # without guided decoding: other keys, other order, no arguments, several arrays, text after calls
    ('[TOOL_CALLS] [{"name": "f", "arguments": {}, "id": "a}b]c"}]', call(0, "f", "{}"), True),
    ('[TOOL_CALLS] [{"arguments": { "a" : [1, {}] } , "name": "f\\u00e4"}]', call(0, "fä", '{ "a" : [1, {}] }'), True),
    ('[TOOL_CALLS] [{"name": "now"}]', call(0, "now", "{}"), True),
    (
        '[TOOL_CALLS] [{"name": "f", "arguments": {}}]\n[TOOL_CALLS] [{"name": "g", "arguments": {}}]\n Done.',
        [*call(0, "f", "{}"), *call(1, "g", "{}"), TextDelta("\n Done.")],
        True,
    ),
    # incomplete
    ('[TOOL_CALLS] [{"name": "f", "arg', [TextDelta('[TOOL_CALLS] [{"name": "f", "arg')], False),
    (' [TOOL_CALLS', [TextDelta(" [TOOL_CALLS")], False),
    (' [TOOL_CALLS] ', [TextDelta(" [TOOL_CALLS] ")], False),
    ('[TOOL_CALLS] [', [TextDelta("[TOOL_CALLS] [")], False),
    ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": "x', call(0, "f", '{"a": "x'), False),
    ('[TOOL_CALLS] [{"name": "f", "arguments": {}', call(0, "f", "{}"), True),
    ('[TOOL_CALLS] [{"name": "f", "arguments": {}}, ', call(0, "f", "{}"), True),
    (
        '[TOOL_CALLS] [{"name": "f", "arguments": {}}, {"na',
        [*call(0, "f", "{}"), TextDelta('{"na')],
        True,
    ),
    # no calls
    ("[TOOL_CALLS] sorry", [TextDelta("[TOOL_CALLS] sorry")], False),
    ("[TOOL_CALLS] []", [TextDelta("[TOOL_CALLS] []")], False),
    ("\n[TOOL_CALLS] [f(1)]", [TextDelta("\n[TOOL_CALLS] [f(1)]")], False),
    ('[TOOL_CALLS] [{"name": 1}]', [TextDelta('[TOOL_CALLS] [{"name": 1}]')], False),
    ('[TOOL_CALLS] [{"name":"f","arguments":1}]', [TextDelta('[TOOL_CALLS] [{"name":"f","arguments":1}]')], False),
    ('[TOOL_CALLS] [{name: f}]', [TextDelta("[TOOL_CALLS] [{name: f}]")], False),
    (
        '[TOOL_CALLS] no, [TOOL_CALLS] [{"name": "f", "arguments": {}}]',
        [TextDelta("[TOOL_CALLS] no, "), *call(0, "f", "{}")],
        True,
    ),
    ('[TOOL_CALLS] [{"name": "f", "arguments": {}}; oh', [*call(0, "f", "{}"), TextDelta("; oh")], True),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "events", "complete"), ANSWERS, ids=[answer for answer, _, _ in ANSWERS])
def test_answer_gives_these_events_at_once_and_a_character_at_a_time(
    answer: str, events: list[ToolEvent], complete: bool
) -> None:
    for pieces in ([answer], list(answer)):
        parsed, parsed_complete = parse(AUTO, pieces)
        assert joined(parsed) == events
        assert parsed_complete == complete


@pytest.mark.parametrize(
    ("choice", "answer", "events"),
    [
        (REQUIRED, ' [{"name": "f", "arguments": {}}]', call(0, "f", "{}")),
        (REQUIRED, "[", [TextDelta("[")]),
        (REQUIRED, "no", [TextDelta("no")]),
        (NAMED, ' {"a": {"b": []}} ', call(0, "f", '{"a": {"b": []}}')),
        (NAMED, '{"a": ', call(0, "f", '{"a": ')),
        (NAMED, "{}x", [*call(0, "f", "{}"), TextDelta("x")]),
        (NAMED, "", []),
        (NAMED, " [1]", [TextDelta(" [1]")]),
    ],
)
def test_answer_continues_where_the_prompt_ended(choice: ToolChoice, answer: str, events: list[ToolEvent]) -> None:
    for pieces in ([answer], list(answer)):
        assert joined(parse(choice, pieces)[0]) == events


@pytest.mark.parametrize(
    ("choice", "answer", "events"),
    [
        (REQUIRED, ' [{"name": "get_weather"', []),
        (REQUIRED, " [", []),
        (REQUIRED, ' [{"name": "f", "arguments": {"a": 1}}, {"na', call(0, "f", '{"a": 1}')),
        (REQUIRED, ' [{"name": "f", "arguments": {"a": ', call(0, "f", '{"a": ')),
        (REQUIRED, ' [{"arguments": {"a": 1}, "na', []),
        (REQUIRED, "no", [TextDelta("no")]),
        (NAMED, " ", []),
        (AUTO, ' [TOOL_CALLS] [{"name": "f"', []),
        (AUTO, "[TOOL_CALLS]", []),
        (AUTO, " [TOOL_CA", []),
        (AUTO, 'I look.\n[TOOL_CALLS] [{"name": "f"', [TextDelta("I look.\n")]),
        (AUTO, "a [TOOL", [TextDelta("a ")]),
        (AUTO, "a [", [TextDelta("a [")]),
        (AUTO, " ", [TextDelta(" ")]),
        (AUTO, "[TOOL_CALLS] sorry", [TextDelta("[TOOL_CALLS] sorry")]),
    ],
)
def test_syntax_of_a_call_that_max_tokens_cut_is_no_text(
    choice: ToolChoice, answer: str, events: list[ToolEvent]
) -> None:
    for pieces in ([answer], list(answer)):
        parser = ToolCallParser(choice, ids())
        fed = [event for piece in pieces for event in parser.feed(piece)]
        assert joined([*fed, *parser.finish(cut=True)]) == events


def test_call_streams_its_name_first_then_its_arguments_as_they_come() -> None:
    parser = ToolCallParser(AUTO, ids())
    pieces = ["[TOOL_", 'CALLS] [{"name": "f', '", "arguments"', ": ", '{"a', '": 1', "}}", "]"]
    assert [parser.feed(piece) for piece in pieces] == [
        [],
        [],
        [],
        [],
        [ToolCallStart(index=0, id="id0", name="f"), ArgumentsDelta(index=0, arguments='{"a')],
        [ArgumentsDelta(index=0, arguments='": 1')],
        [ArgumentsDelta(index=0, arguments="}")],
        [],
    ]
    assert parser.finish() == []


def test_text_is_held_back_only_while_it_may_become_the_marker() -> None:
    parser = ToolCallParser(AUTO, ids())
    pieces = [" ", "Ein", " [", "x] ", "[TOOL", "_CALLS"]
    fed = [[event.text for event in parser.feed(piece) if isinstance(event, TextDelta)] for piece in pieces]
    assert fed == [[], [" Ein"], [" "], ["[x] "], [], []]
    assert parser.finish() == [TextDelta("[TOOL_CALLS")]


FRAGMENTS = st.sampled_from([
    *("[TOOL_CALLS]", "[TOOL", "_CALLS]", "[", "]", "{", "}", ",", " ", "\n", '"', "\\", ":", "ä", "text", "1"),
    *('"name"', '"arguments"', '"f"', '{"name": "f", "arguments": {', '{"name": "f", "arguments": {}}', '"x": 1'),
])  # fmt: skip


def cuts(text: str) -> st.SearchStrategy[list[str]]:
    def cut(places: list[int]) -> list[str]:
        ends = sorted(places)
        return [text[begin:end] for begin, end in zip([0, *ends], [*ends, len(text)], strict=True)]

    return st.lists(st.integers(0, len(text)), max_size=8).map(cut)


@given(text=st.lists(FRAGMENTS, max_size=25).map("".join), data=st.data())
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.mode)
def test_events_do_not_depend_on_how_the_text_is_divided(choice: ToolChoice, text: str, data: st.DataObject) -> None:
    at_once, complete = parse(choice, [text])
    for pieces in (list(text), data.draw(cuts(text))):
        events, also_complete = parse(choice, pieces)
        assert joined(events) == joined(at_once)
        assert also_complete == complete


@given(text=st.lists(FRAGMENTS, max_size=25).map("".join))
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.mode)
def test_events_are_parts_of_the_text_and_only_syntax_is_dropped(choice: ToolChoice, text: str) -> None:
    """The text of the events occurs in the answer in this order; without calls it is the complete answer."""
    events, _ = parse(choice, [text])
    at = 0
    for event in joined(events):
        part = (
            event.text if isinstance(event, TextDelta) else "" if isinstance(event, ToolCallStart) else event.arguments
        )
        if part == "{}":  # perhaps for arguments that the model left out
            continue
        found = text.find(part, at)
        assert found >= 0
        at = found + len(part)
    if not any(isinstance(event, ToolCallStart) for event in events):
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == text


NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
OBJECTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)  # fmt: skip


@given(
    prose=st.text(max_size=10).filter(lambda text: "[" not in text and (text.strip() or not text)),
    called=st.lists(st.tuples(NAMES, OBJECTS), min_size=1, max_size=4),
    separators=st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", " : ")]),
    ensure_ascii=st.booleans(),
)
@example(prose="", called=[("f", {"[TOOL_CALLS]": "[TOOL_CALLS] ["})], separators=(", ", ": "), ensure_ascii=True)
def test_any_calls_are_parsed_with_their_arguments_unchanged(
    prose: str,
    called: list[tuple[str, dict[str, object]]],
    separators: tuple[str, str],
    ensure_ascii: bool,
) -> None:
    def write(value: object) -> str:
        return json.dumps(value, separators=separators, ensure_ascii=ensure_ascii)

    answer = f"{prose}[TOOL_CALLS] " + write([{"name": name, "arguments": arguments} for name, arguments in called])
    text, calls = collect(parse(AUTO, list(answer))[0])
    assert text == prose
    assert calls == tuple(
        ToolCall(id=f"id{index}", name=name, arguments=write(arguments))
        for index, (name, arguments) in enumerate(called)
    )
