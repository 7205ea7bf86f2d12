"""Everything an operator can set, once: the command line, the environment and the defaults all come from this list.

Refuses secrets on the command line, because everybody on the host can read it, and serving limits, which belong to the
engine's config.pbtxt.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_args

import limits

ENV_PREFIX = "FRONTEND_"
SCRIPT = "mixtral-frontend"
"""The command that an installed wheel has for `python -m frontend`."""

_ORIGIN = re.compile(r"\*|https?://[^/\s,]+")


def _rate(text: str) -> limits.RateLimitItem:
    try:
        rates = limits.parse_many(text)
    except ValueError:
        rates = []
    if len(rates) != 1 or rates[0].amount < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: 60/minute, 1000/day, 5/10 seconds")
    return rates[0]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a number from 1 on")
    return int(text)


def _origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: https://HOST, https://HOST:PORT, * for all")
    return text


def _yes(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: true, false")
    return text == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `python -m frontend` was told. Seconds end in `_s`, bytes in `_bytes`.

    Each has what it means and how it is read; a secret has only a meaning, and comes from the environment.
    """

    engine_dir: Annotated[Path, "published engine directory: tokenizer files and manifest.json", Path]
    model: Annotated[str, "name of the Triton model", str] = "openvino"
    triton_url: Annotated[str, "where Triton serves HTTP", str] = "http://127.0.0.1:8001"
    triton_metrics_url: Annotated[
        str, "where Triton serves its metrics, for the KV cache's in /metrics (default: not told)", str
    ] = ""
    host: Annotated[str, "address to listen on", str] = "127.0.0.1"
    port: Annotated[int, "port to listen on", int] = 8000
    served_model_name: Annotated[
        tuple[str, ...], "name that clients may use; repeat it for several (default: the checkpoint's path)", str
    ] = ()
    api_key_file: Annotated[
        Path | None, "API keys, one in a line: sha256:<hex> and a name (default: everybody may call)", Path
    ] = None
    api_keys: Annotated[tuple[str, ...], "plain API keys, separated by commas"] = field(default=(), repr=False)
    rate_limit: Annotated[
        limits.RateLimitItem | None,
        "POST requests of each API key, or of each client address where there are no keys, such as 60/minute",
        _rate,
    ] = None
    max_requests_per_key: Annotated[int | None, "POST requests of each at a time, those that wait included", _count] = (
        None
    )
    cors_origin: Annotated[
        tuple[str, ...], "origin whose pages may call from a browser; repeat it for several, * for all", _origin
    ] = ()
    ssl_certfile: Annotated[Path | None, "serve HTTPS with this certificate, PEM", Path] = None
    ssl_keyfile: Annotated[Path | None, "its private key, PEM, if it is not in the same file", Path] = None
    ssl_keyfile_password: Annotated[str, "password of the private key"] = field(default="", repr=False)
    max_body_bytes: Annotated[int, "largest request body", int] = 4 * 1024 * 1024
    max_queue_length: Annotated[int, "generations that may wait for the engine; more are answered 429", int] = 256
    reject_unknown_parameters: Annotated[
        bool, "answer 400 to fields that nobody here knows, instead of naming them in X-Ignored-Params", _yes
    ] = False
    allow_chat_template: Annotated[
        bool, "let requests bring a chat template of their own: trust those who call, as it is a program", _yes
    ] = False
    enable_prompt_tokens_details: Annotated[
        bool, "tell in `usage` how much of the prompt was in the KV cache; needs an engine that says so", _yes
    ] = False
    system_fingerprint: Annotated[bool, "tell in answers which engine gave them", _yes] = False
    startup_timeout_s: Annotated[float, "how long to wait for Triton and its model at start", float] = 120.0
    request_timeout_s: Annotated[float, "longest time for one answer, queueing included", float] = 1800.0
    shutdown_timeout_s: Annotated[int, "time for running answers to finish after SIGTERM", int] = 30

    @classmethod
    def from_args(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "Settings":
        """Command line before environment before default; an empty variable is like none.

        Exits as argparse does on what it cannot read.
        """
        parser = _parser(environ)
        given = vars(parser.parse_args(argv))
        given = vars(parser.parse_args([*argv, *_several_of(environ, given)]))
        if given["ssl_keyfile"] and not given["ssl_certfile"]:
            parser.error("argument --ssl-keyfile: of no use without --ssl-certfile")
        given |= {setting.name: environ.get(_variable(setting), "") for setting in fields(cls) if _is_secret(setting)}
        given["api_keys"] = _split(given["api_keys"])
        given |= {setting.name: tuple(given[setting.name] or ()) for setting in fields(cls) if _is_several(setting)}
        return cls(**given)


def _flag(setting: "Field[Any]") -> str:
    return "--" + setting.name.replace("_", "-")


def _variable(setting: "Field[Any]") -> str:
    return ENV_PREFIX + setting.name.upper()


def _is_secret(setting: "Field[Any]") -> bool:
    return len(get_args(setting.type)) == 2


def _is_several(setting: "Field[Any]") -> bool:
    return bool(setting.default == ())


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _several_of(environ: Mapping[str, str], given: Mapping[str, Any]) -> list[str]:
    """What the environment says of options that the command line does not repeat even once, as the command line."""
    options = [setting for setting in fields(Settings) if _is_several(setting) and not _is_secret(setting)]
    return [
        f"{_flag(option)}={value}"
        for option in options
        if given[option.name] is None
        for value in _split(environ.get(_variable(option), ""))
    ]


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    secrets = [setting for setting in fields(Settings) if _is_secret(setting)]
    only_there = ", ".join(f"{_variable(secret)} ({get_args(secret.type)[1]})" for secret in secrets)
    parser = argparse.ArgumentParser(
        prog=SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python -m frontend",
        allow_abbrev=False,  # vLLM's --api-key KEY must not be taken for a file's name
        description="Serve OpenAI's chat API from a Triton model.",
        epilog=f"Each option can be set in the environment too: --max-body-bytes as {ENV_PREFIX}MAX_BODY_BYTES. "
        f"There, several values are separated by commas. Only there: {only_there}.",
    )
    for setting in fields(Settings):
        if not _is_secret(setting):
            _add_option(parser, setting, environ.get(_variable(setting)) or None)
    return parser


def _add_option(parser: argparse.ArgumentParser, setting: "Field[Any]", from_environment: str | None) -> None:
    """One option. argparse converts a default that is a string, so the environment is read like the command line."""
    _, meaning, read = get_args(setting.type)
    metavar = read.__name__.strip("_").upper()
    default = setting.default if from_environment is None else from_environment
    if _is_several(setting):
        parser.add_argument(_flag(setting), action="append", type=read, help=meaning, metavar=metavar)
    elif default is MISSING:
        parser.add_argument(_flag(setting), type=read, required=True, help=meaning, metavar=metavar)
    else:
        shown = meaning if setting.default in (None, MISSING) else f"{meaning} (default: {setting.default})"
        bare: dict[str, Any] = {"nargs": "?", "const": True} if read is _yes else {}
        parser.add_argument(_flag(setting), type=read, default=default, help=shown, metavar=metavar, **bare)
