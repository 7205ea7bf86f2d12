"""`make chat` without a terminal, in front of the frontend and its fake Triton."""

import io
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frontend.terminal_chat.__main__ import main
from frontend.text.served_model import ServedModel
from tests.frontend.conftest import API_KEY, MODEL, Running
from tests.frontend.fake_triton import Endless, Events, FakeTriton

Chat = Callable[..., int]


@pytest.fixture
def writes(mixtral: ServedModel) -> Callable[[str], Events]:
    """An answer of the engine, token by token. Mixtral's tokens of a text begin with a space."""
    return lambda text: Events([[token_id] for token_id in mixtral.tokenizer.encode(text)] + [[]])


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Runs the program with these lines as input; returns its exit status."""

    def run(lines: str, *arguments: str, key: str = "") -> int:
        monkeypatch.setenv("API_KEY", key)
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return main(arguments)

    return run


def test_each_line_is_a_message_and_only_answers_are_on_stdout(
    chat: Chat,
    frontend: Running,
    mixtral: ServedModel,
    triton: FakeTriton,
    writes: Callable[[str], Events],
    capsys: pytest.CaptureFixture[str],
) -> None:
    triton.script = [writes("Fine.")]
    assert chat("One?\n\nTwo?\n", "--url", frontend.guarded_url, "--set", "max_tokens=50", key=API_KEY) == 0
    shown = capsys.readouterr()
    assert shown.out == " Fine.\n Fine.\n"
    assert shown.err.count(" tokens, first after ") == 2
    prompts = [mixtral.tokenizer.decode(request["input_ids"]) for request in triton.requests]
    assert ["Two?" in prompt for prompt in prompts] == [False, True]
    assert [request["request_output_len"] for request in triton.requests] == [50, 50]


def test_commands_work_and_a_failed_one_is_in_the_exit_status(
    chat: Chat,
    frontend: Running,
    triton: FakeTriton,
    writes: Callable[[str], Events],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    triton.script = [writes("Blau, wie ein Fluß.")]
    file = tmp_path / "talk.json"
    lines = ["Gone?", "/clear", "/system Kurz.", "Farbe?", f"/save {file}", f"/save {file}", "/save", "/bye", "/help"]
    assert chat("\n".join([*lines, "/quit", "not sent"]), "--url", frontend.url, "--set", "stop=END") == 1
    assert json.loads(file.read_text()) == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Kurz."},
            {"role": "user", "content": "Farbe?"},
            {"role": "assistant", "content": " Blau, wie ein Fluß."},
        ],
        "stop": "END",
    }
    remarks = capsys.readouterr().err
    assert f"saved {file}\nerror: [Errno 17] File exists: '{file}'\n" in remarks
    assert "error: /save FILE  writes the conversation" in remarks
    assert "error: there is no /bye; there are /system, /save, /clear, /help, /quit." in remarks
    assert "/quit  ends, as Ctrl-D does; Ctrl-C stops an answer\n" in remarks
    assert len(triton.requests) == 2


def test_no_key_is_asked_for_and_the_apis_message_is_shown(
    chat: Chat, frontend: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat("Hi\n", "--url", frontend.guarded_url) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: 401: ")


def test_a_message_that_failed_is_not_kept_and_the_next_one_is_sent(
    chat: Chat,
    frontend: Running,
    mixtral: ServedModel,
    triton: FakeTriton,
    writes: Callable[[str], Events],
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers: list[list[Any]] = [[Events([[28705], "the engine failed"])], [writes("Fine.")]]
    triton.script = lambda _: answers.pop(0)
    assert chat("One?\nTwo?\n", "--url", frontend.url) == 1
    shown = capsys.readouterr()
    assert "error: " in shown.err
    assert shown.out.endswith("Fine.\n")
    assert "One?" not in mixtral.tokenizer.decode(triton.requests[1]["input_ids"])


def test_a_full_queue_names_the_time_to_wait(
    chat: Chat, frontend: Running, triton: FakeTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat("Hi\n", "--url", frontend.url, "--set", "n=100") == 1
    assert "error: 4" in capsys.readouterr().err


def test_ctrl_c_ends_the_program_where_there_is_no_terminal(chat: Chat, frontend: Running, triton: FakeTriton) -> None:
    triton.script = [Endless(token_id=28705)]

    main_thread = threading.main_thread().ident or 0

    def press() -> None:
        frontend.wait_until(lambda: triton.num_running == 1)
        signal.pthread_kill(main_thread, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    assert chat("Hi\n", "--url", frontend.url) == 130
    thread.join()
    frontend.wait_until(lambda: triton.num_running == 0)


def test_a_server_that_does_not_answer_is_named(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("Hi\n", "--url", "http://127.0.0.1:1") == 1
    assert capsys.readouterr().err == (
        "error: http://127.0.0.1:1 does not answer ([Errno 111] Connection refused); start it with make run,"
        " or name another with --url\n"
    )


def test_a_url_without_its_scheme_is_named(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("Hi\n", "--url", "127.0.0.1:1") == 1
    assert "missing an 'http://' or 'https://' protocol" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["temperature", "=1"])
def test_a_parameter_without_name_or_value_is_refused(
    chat: Chat, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        chat("", "--set", wrong)
    assert f"{wrong!r} is not NAME=VALUE" in capsys.readouterr().err
