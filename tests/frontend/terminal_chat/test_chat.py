"""`make chat` at a terminal, in front of the frontend and its fake Triton."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from frontend.text.served_model import ServedModel
from tests.frontend.conftest import API_KEY, CHAT, MODEL, Running
from tests.frontend.fake_triton import Endless, Events, FakeTriton, Silence
from tests.frontend.terminal_chat.typed import ALT_ENTER, CTRL_C, CTRL_D, ENTER, PROMPT, Typed, typing

CHAT_PROGRAM = "frontend.terminal_chat"


@pytest.fixture
def writes(mixtral: ServedModel) -> Callable[[str], Events]:
    """An answer of the engine, token by token. Mixtral's tokens of a text begin with a space."""
    return lambda text: Events([[token_id] for token_id in mixtral.tokenizer.encode(text)] + [[]])


@pytest.fixture
def chat(frontend: Running) -> Iterator[Typed]:
    with typing([CHAT_PROGRAM, "--url", frontend.url]) as typed:
        typed.read_to(f"{MODEL} at {frontend.url}; /help lists the commands")
        yield typed


def prompts(mixtral: ServedModel, triton: FakeTriton) -> list[str]:
    """What the engine was asked, as text."""
    return [mixtral.tokenizer.decode(request["input_ids"]) for request in triton.requests]


def test_an_answer_is_shown_with_its_tokens_and_times(
    chat: Typed, triton: FakeTriton, writes: Callable[[str], Events]
) -> None:
    triton.script = [writes("Yes, we can.")]
    chat.say("Can we?")
    chat.read_to("Yes, we can.\n")
    figures = chat.read_to("\n")
    num_tokens = sum(map(len, writes("Yes, we can.").responses))
    assert figures.startswith(f"{num_tokens} tokens, first after 0.")
    assert figures.endswith(" tokens/s")
    chat.say("/quit")
    assert chat.ends() == 0


def test_the_conversation_goes_on_until_it_is_cleared_and_the_system_prompt_stays(
    chat: Typed, mixtral: ServedModel, triton: FakeTriton, writes: Callable[[str], Events]
) -> None:
    triton.script = [writes("Blue.")]
    chat.say("/system Be brief.")
    for line in ("Which colour?", "And which else?", "/clear", "Once more?"):
        chat.say(line)
    chat.say("/quit")
    assert chat.ends() == 0
    first, second, third = prompts(mixtral, triton)
    assert "Be brief." in first
    assert "Which colour?" in second
    assert "Blue." in second
    assert "And which else?" in second
    assert "Be brief." in third
    assert "colour" not in third


def test_ctrl_c_stops_the_answer_frees_its_slot_and_leaves_the_program(
    chat: Typed, frontend: Running, triton: FakeTriton, writes: Callable[[str], Events]
) -> None:
    triton.script = [Endless(token_id=mixtral_token(writes))]
    chat.say("Go on")
    chat.read_to("on on on on")
    assert triton.num_running == 1
    chat.type(CTRL_C)
    chat.read_to("; stopped\n")
    frontend.wait_until(lambda: triton.num_running == 0)
    assert triton.num_cancelled == 1
    triton.script = [writes("Here.")]
    chat.say("Still there?")
    chat.read_to("Here.\n")
    chat.read_to(PROMPT)
    chat.type(CTRL_D)
    assert chat.ends() == 0


def mixtral_token(writes: Callable[[str], Events]) -> int:
    """The token " on"."""
    first = writes("on").responses[0]
    assert isinstance(first, list)
    return first[0]


def test_ctrl_c_before_the_first_token_stops_the_request(chat: Typed, frontend: Running, triton: FakeTriton) -> None:
    ends = threading.Event()
    triton.script = [Silence(ends)]
    chat.say("Hello?")
    frontend.wait_until(lambda: triton.num_running == 1)
    chat.type(CTRL_C)
    chat.read_to("no token; stopped\n")
    ends.set()
    chat.say("/quit")
    assert chat.ends() == 0


def test_ctrl_c_at_the_prompt_clears_the_line_and_ctrl_d_ends(chat: Typed, triton: FakeTriton) -> None:
    chat.read_to(PROMPT)
    chat.type("not sent" + CTRL_C)
    chat.read_to("/quit or Ctrl-D ends")
    chat.read_to(PROMPT)
    chat.type(CTRL_D)
    assert chat.ends() == 0
    assert triton.requests == []


def test_alt_enter_begins_another_line_of_the_message(
    chat: Typed, mixtral: ServedModel, triton: FakeTriton, writes: Callable[[str], Events]
) -> None:
    triton.script = [writes("Two.")]
    chat.read_to(PROMPT)
    chat.type(f"one{ALT_ENTER}two{ENTER}")
    chat.read_to("Two.\n")
    assert "one\ntwo" in prompts(mixtral, triton)[0]


def test_a_saved_conversation_is_a_request_that_the_api_takes(
    chat: Typed, frontend: Running, triton: FakeTriton, writes: Callable[[str], Events], tmp_path: Path
) -> None:
    triton.script = [writes("Blau, wie ein Fluß.")]
    file = tmp_path / "talk.json"
    chat.say("/system Kurz.")
    chat.say("Farbe?")
    chat.say(f"/save {file}")
    chat.read_to(f"saved {file}")
    chat.say(f"/save {file}")
    chat.read_to(f"error: [Errno 17] File exists: '{file}'")
    saved = json.loads(file.read_text())
    assert saved == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Kurz."},
            {"role": "user", "content": "Farbe?"},
            {"role": "assistant", "content": " Blau, wie ein Fluß."},
        ],
    }
    saved["messages"].append({"role": "user", "content": "Und?"})
    assert httpx.post(frontend.url + CHAT, json=saved).status_code == 200


def test_an_unknown_command_is_not_sent_and_the_known_ones_are_named(chat: Typed, triton: FakeTriton) -> None:
    chat.say("/bye")
    chat.read_to("error: there is no /bye; there are /system, /save, /clear, /help, /quit.")
    chat.say("/help")
    chat.read_to("/quit  ends, as Ctrl-D does; Ctrl-C stops an answer")
    assert triton.requests == []


def test_control_characters_of_the_model_do_not_reach_the_terminal(
    chat: Typed, triton: FakeTriton, writes: Callable[[str], Events]
) -> None:
    triton.script = [writes("a\x1b]0;owned\x07b\x9b2Jc")]
    chat.say("Attack!")
    chat.read_to("a\u241b]0;owned\u2407b\ufffd2Jc\n")


def test_errors_are_worded_as_the_api_words_them(frontend: Running, triton: FakeTriton) -> None:
    with typing([CHAT_PROGRAM, "--url", frontend.url, "--set", "temperature=9"]) as chat:
        chat.say("Hot?")
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hot?"}], "temperature": 9}
        message = httpx.post(frontend.url + CHAT, json=body).json()["error"]["message"]
        chat.read_to(f"error: 400: {message}\n")


def test_a_key_is_asked_for_without_showing_it(
    frontend: Running, triton: FakeTriton, writes: Callable[[str], Events]
) -> None:
    triton.script = [writes("Welcome.")]
    with typing([CHAT_PROGRAM, "--url", frontend.guarded_url], {"API_KEY": ""}) as chat:
        chat.read_to("API key:")
        chat.type(API_KEY + ENTER)
        chat.say("Knock")
        chat.read_to("Welcome.\n")
        assert API_KEY not in chat.screen


def test_a_wrong_key_ends_with_the_apis_message(frontend: Running) -> None:
    with typing([CHAT_PROGRAM, "--url", frontend.guarded_url], {"API_KEY": ""}) as chat:
        chat.read_to("API key:")
        chat.type("wrong" + ENTER)
        chat.read_to("error: 401: ")
        assert chat.ends() == 1
