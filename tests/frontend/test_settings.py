"""One list of settings: command line before environment before default."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from frontend.__main__ import main
from frontend.settings import ENV_PREFIX, Settings

NEEDED = ["--engine-dir", "/engine"]


def test_defaults_are_for_this_machine_only() -> None:
    settings = Settings.from_args(NEEDED, {})
    assert (settings.host, settings.port, settings.triton_url) == ("127.0.0.1", 8000, "http://127.0.0.1:8001")
    assert settings.served_model_name == ()


def test_environment_replaces_defaults_and_the_command_line_replaces_both() -> None:
    environ = {"FRONTEND_ENGINE_DIR": "/from/env", "FRONTEND_PORT": "9", "FRONTEND_SERVED_MODEL_NAME": "a,b"}
    settings = Settings.from_args([], environ)
    assert (settings.engine_dir, settings.port, settings.served_model_name) == (Path("/from/env"), 9, ("a", "b"))
    settings = Settings.from_args(["--port", "7", "--served-model-name", "c", "--served-model-name", "d/e"], environ)
    assert (settings.port, settings.served_model_name) == (7, ("c", "d/e"))


@pytest.mark.parametrize("argv", [[], [*NEEDED, "--port", "x"], [*NEEDED, "--unknown", "1"]])
def test_what_cannot_be_read_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Settings.from_args(argv, {})
    assert caught.value.code == 2


def test_number_in_the_environment_that_is_none_is_refused() -> None:
    with pytest.raises(SystemExit):
        Settings.from_args(NEEDED, {f"{ENV_PREFIX}PORT": "x"})


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.from_args(["--help"], {})
    listed = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert {"--" + setting.name.replace("_", "-") for setting in fields(Settings)} <= listed


@pytest.mark.parametrize("missing", ["engine", "triton"])
def test_start_without_an_engine_or_without_triton_fails_with_one_line(
    engine_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    directory = tmp_path if missing == "engine" else engine_dir
    words = "tokenizer_config.json" if missing == "engine" else "is Triton running?"
    argv = ["--engine-dir", str(directory), "--triton-url", "http://127.0.0.1:9", "--startup-timeout-s", "0.1"]
    monkeypatch.setattr(sys, "argv", ["frontend", *argv])
    assert main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), words in lines[0]) == (1, True)
