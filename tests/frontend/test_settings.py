"""Settings come from the command line, else the environment, else the default."""

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


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [*NEEDED, "--port", "x"],
        [*NEEDED, "--unknown", "1"],
        [*NEEDED, "--api-keys", "secret"],
        [*NEEDED, "--api-key", "secret"],
        [*NEEDED, "--ssl-keyfile-password", "secret"],
        [*NEEDED, "--ssl-keyfile", "key.pem"],
        [*NEEDED, "--max-requests-per-key", "0"],
        [*NEEDED, "--queue-full-status", "500"],
        [*NEEDED, "--log-level", "trace"],
        [*NEEDED, "--log-format", "xml"],
        [*NEEDED, "--generation-config", "none"],
        [*NEEDED, "--max-log-len", "0"],
        *([*NEEDED, "--drain-seconds", seconds] for seconds in ("-1", "5s", "nan", "inf", "")),
        *([*NEEDED, "--rate-limit", rate] for rate in ("60", "0/minute", "60/fortnight", "1/second;5/minute", "")),
        *([*NEEDED, "--forwarded-allow-ips", ips] for ips in ("*", "proxy", "10.0.0.1/8", "10.0.0.1,10.0.0.2", "")),
        *([*NEEDED, "--root-path", path] for path in ("llm", "/a b", "https://host/llm", "//host")),
        *([*NEEDED, "--cors-origin", o] for o in ("example.org", "https://example.org/", "http://a,http://b", "")),
    ],
)
def test_invalid_options_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Settings.from_args(argv, {})
    assert caught.value.code == 2


def test_the_prefix_of_a_proxy_ends_without_a_slash() -> None:
    paths = {given: Settings.from_args([*NEEDED, "--root-path", given], {}).root_path for given in ("/llm/", "/", "")}
    assert paths == {"/llm/": "/llm", "/": "", "": ""}


def test_invalid_number_in_the_environment_is_refused() -> None:
    with pytest.raises(SystemExit):
        Settings.from_args(NEEDED, {f"{ENV_PREFIX}PORT": "x"})


@pytest.mark.parametrize("name", ["RATE_LIMIT", "CORS_ORIGIN", "MAX_REQUESTS_PER_KEY"])
def test_environment_is_checked_like_the_command_line(name: str) -> None:
    with pytest.raises(SystemExit):
        Settings.from_args(NEEDED, {ENV_PREFIX + name: "ten a day"})


def test_access_is_open_by_default_and_set_by_command_line_or_environment() -> None:
    settings = Settings.from_args(NEEDED, {})
    assert (settings.api_key_file, settings.api_keys, settings.rate_limit, settings.cors_origin) == (None, (), None, ())
    environ = {"RATE_LIMIT": "60/minute", "CORS_ORIGIN": "https://a, http://b:1", "API_KEY_FILE": "/keys"}
    settings = Settings.from_args(NEEDED, {ENV_PREFIX + name: value for name, value in environ.items()})
    assert str(settings.rate_limit) == "60 per 1 minute"
    assert (settings.cors_origin, settings.api_key_file) == (("https://a", "http://b:1"), Path("/keys"))
    argv = ["--cors-origin", "*", "--rate-limit", "5/10 seconds", "--max-requests-per-key", "3"]
    settings = Settings.from_args(NEEDED + argv, {"FRONTEND_CORS_ORIGIN": "https://a"})
    assert (settings.cors_origin, str(settings.rate_limit), settings.max_requests_per_key) == (
        ("*",), "5 per 10 second", 3,
    )  # fmt: skip


def test_an_empty_variable_counts_as_not_set() -> None:
    """A compose file passes all settings, also those that are not set."""
    names = [ENV_PREFIX + setting.name.upper() for setting in fields(Settings)]
    assert Settings.from_args(NEEDED, dict.fromkeys(names, "")) == Settings.from_args(NEEDED, {})


def test_secrets_come_from_the_environment_and_are_not_in_the_repr() -> None:
    environ = {"FRONTEND_API_KEYS": "key-1, key-2,", "FRONTEND_SSL_KEYFILE_PASSWORD": "word-3"}
    settings = Settings.from_args(NEEDED, environ)
    assert (settings.api_keys, settings.ssl_keyfile_password) == (("key-1", "key-2"), "word-3")
    assert not re.search("key-1|key-2|word-3", repr(settings))


def test_help_lists_every_setting_but_secrets_only_by_their_variables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.from_args(["--help"], {"FRONTEND_API_KEYS": "first"})
    shown = capsys.readouterr().out
    flags = {"--" + setting.name.replace("_", "-") for setting in fields(Settings)}
    secrets = {"--api-keys", "--ssl-keyfile-password", "--triton-key"}
    assert flags - set(re.findall(r"--[a-z-]+", shown)) == secrets
    assert set(re.findall(r"FRONTEND_[A-Z_]+", shown)) == {
        "FRONTEND_MAX_BODY_BYTES", "FRONTEND_API_KEYS", "FRONTEND_SSL_KEYFILE_PASSWORD", "FRONTEND_TRITON_KEY",
    }  # fmt: skip
    assert "first" not in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine-dir", "/nowhere"], "tokenizer_config.json"),
        ([], "is Triton running?"),
        (["--chat-template", "/nowhere/chat.jinja"], "/nowhere/chat.jinja"),
        (["--chat-template", "{{ messages"], "the chat template renders no plain conversation"),
        (["--api-key-file", "/nowhere/keys"], "/nowhere/keys"),
        (["--ssl-certfile", "/nowhere/cert.pem"], "/nowhere/cert.pem"),
    ],
)
def test_start_without_a_file_or_triton_fails_with_one_line(
    engine_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    argv = ["--engine-dir", str(engine_dir), "--triton-url", "http://127.0.0.1:9", "--startup-timeout-s", "0.1"]
    monkeypatch.setattr(sys, "argv", ["frontend", *argv, *options])
    assert main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), words in lines[0]) == (1, True)
