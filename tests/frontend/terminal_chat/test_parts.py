"""Lines, figures and text of the terminal chat, without a server."""

from itertools import count

import pytest

from frontend.terminal_chat.chat import Answer
from frontend.terminal_chat.conversation import Conversation, request
from frontend.terminal_chat.figures import Figures
from frontend.terminal_chat.lines import Command, Message, UnknownCommand, read_line
from frontend.terminal_chat.printable import printable


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("What is a house?\n", Message("What is a house?")),
        ("  \n", None),
        ("//etc/hosts?", Message("/etc/hosts?")),
        ("/system Be brief. Be kind.", Command("system", "Be brief. Be kind.")),
        ("/save  talk.json ", Command("save", "talk.json")),
        ("/clear", Command("clear", "")),
    ],
)
def test_a_line_is_a_message_or_a_command(line: str, meaning: object) -> None:
    assert read_line(line) == meaning


@pytest.mark.parametrize("line", ["/", "/Quit", "/etc/hosts"])
def test_what_begins_as_a_command_and_is_none_is_refused(line: str) -> None:
    with pytest.raises(UnknownCommand, match="there are /system, /save, /clear, /help, /quit"):
        read_line(line)


def test_turns_alternate_behind_the_system_prompt() -> None:
    conversation = Conversation("Be brief.").with_turn("One?").with_turn("1").with_turn("Two?")
    assert request("m", conversation, {"max_tokens": 5}) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two?"},
        ],
        "max_tokens": 5,
    }


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ((0, None, None, "stopped"), "no token; stopped"),
        ((1, 0.4, 0.4, ""), "1 token, first after 0.40 s"),
        ((101, 0.5, 5.5, ""), "101 tokens, first after 0.50 s, 20.0 tokens/s"),
        ((3, 0.5, 1.5, "stopped"), "3 tokens, first after 0.50 s, 2.0 tokens/s; stopped"),
    ],
)
def test_the_rate_is_that_of_the_tokens_after_the_first(
    figures: tuple[int, float | None, float | None, str], shown: str
) -> None:
    num_tokens, first_s, last_s, ending = figures
    assert str(Figures(num_tokens=num_tokens, first_s=first_s, last_s=last_s, ending=ending)) == shown


def test_tokens_are_counted_by_the_server_or_else_by_the_events() -> None:
    ticks = count()
    counted, uncounted = Answer(lambda: float(next(ticks))), Answer(lambda: float(next(ticks)))
    for text, num_tokens in (("", 0), ("ab", 3), ("", 4), ("c", 6)):
        counted.add(text, num_tokens, None)
        uncounted.add(text, None, "length")
    assert (counted.text, counted.figures().num_tokens) == ("abc", 6)
    assert (uncounted.text, uncounted.figures().num_tokens) == ("abc", 2)
    assert uncounted.figures().ending == "cut off at max_tokens or at the end of the context"


def test_text_keeps_its_lines_and_tabs_and_shows_its_control_characters() -> None:
    assert printable("a\tb\nc é 漢 🙂") == "a\tb\nc é 漢 🙂"
    assert printable("\x1b[2J\r\x7f\x85") == "\u241b[2J\u240d\u2421\ufffd"
