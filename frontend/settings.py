"""All settings of the frontend in one list, from which the command line, the environment and the defaults are read.

Not here: secrets on the command line, because every user of the host can read it; and the engine's limits, which are in
its config.pbtxt.
"""

import argparse
import ipaddress
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit

import limits

ENV_PREFIX = "FRONTEND_"
TRITON_KEY_VARIABLE = f"{ENV_PREFIX}TRITON_KEY"
SCRIPT = "mixtral-frontend"
"""The command that an installed wheel has for `python -m frontend`."""

TRITON_KEY_HEADER = "triton-key"
"""The header with `triton_key`. Triton serves inference to those that send it, if it was started with such a key."""

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")
GENERATION_CONFIGS = ("auto", "vllm")
"""The values of newer vLLM's --generation-config, without its third, a directory."""
QUEUE_FULL_STATUSES = ("429", "503")

Network = IPv4Network | IPv6Network

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


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a number of seconds from 0 on")
    return float(text)


def _origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: https://HOST, https://HOST:PORT, * for all")
    return text


def _path_prefix(text: str) -> str:
    if not re.fullmatch(r"(/[\w.~-]+)*/?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a path such as /llm")
    return text.rstrip("/")


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: 10.0.0.7, 10.0.0.0/24, ::1") from None


def _collector(text: str) -> str:
    """The URL as it is, or the standard path where it has none."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: http://HOST:4318/v1/traces, as traces go over HTTP")
    return text if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1/traces"


def _level(text: str) -> str:
    return _one_of(text, LOG_LEVELS)


def _format(text: str) -> str:
    return _one_of(text, LOG_FORMATS)


def _defaults(text: str) -> str:
    return _one_of(text, GENERATION_CONFIGS)


def _status(text: str) -> int:
    return int(_one_of(text, QUEUE_FULL_STATUSES))


def _one_of(text: str, accepted: Sequence[str]) -> str:
    if text not in accepted:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: {', '.join(accepted)}")
    return text


def _yes(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: true, false")
    return text == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of `python -m frontend`. Seconds end in `_s`, but for `drain_seconds`; bytes in `_bytes`.

    A field is annotated with its type, its help text and the function that parses it. A secret has no such function:
    it cannot be set on the command line, only in the environment.
    """

    engine_dir: Annotated[Path, "published engine directory: tokenizer files and manifest.json", Path]
    model: Annotated[str, "name of the Triton model", str] = "openvino"
    triton_url: Annotated[str, "where Triton serves HTTP", str] = "http://127.0.0.1:8001"
    triton_metrics_url: Annotated[
        str, "where Triton serves its metrics: the KV cache's size, and its usage for /metrics (default: not read)", str
    ] = ""
    triton_key: Annotated[str, "key that Triton requires"] = field(default="", repr=False)
    host: Annotated[str, "address to listen on", str] = "127.0.0.1"
    port: Annotated[int, "port to listen on", int] = 8000
    workers: Annotated[int, "processes that serve; with several, each may take a core", _count] = 1
    served_model_name: Annotated[
        tuple[str, ...], "name that clients may use; repeat it for several (default: the checkpoint's path)", str
    ] = ()
    chat_template: Annotated[
        str, "in place of the checkpoint's: a file, or the template itself in one line with \\n for line breaks", str
    ] = ""
    api_key_file: Annotated[
        Path | None, "API keys, one per line: sha256:<hex> and a name (default: no key is needed)", Path
    ] = None
    api_keys: Annotated[tuple[str, ...], "plain API keys, separated by commas"] = field(default=(), repr=False)
    rate_limit: Annotated[
        limits.RateLimitItem | None,
        "POST requests of each API key, or of each client address where there are no keys, such as 60/minute",
        _rate,
    ] = None
    max_requests_per_key: Annotated[
        int | None, "concurrent POST requests of each, including those that wait", _count
    ] = None
    forwarded_allow_ips: Annotated[
        tuple[Network, ...],
        "proxy whose X-Forwarded-For is believed, an address or a network; repeat it for several (default: none)",
        _network,
    ] = ()
    max_connections: Annotated[int, "open connections; more are answered 503", _count] = 4096
    max_connections_per_address: Annotated[
        int, "open connections of one address, other than those of --forwarded-allow-ips; more are answered 429", _count
    ] = 1024
    cors_origin: Annotated[
        tuple[str, ...], "origin whose pages may call from a browser; repeat it for several, * for all", _origin
    ] = ()
    root_path: Annotated[
        str, "prefix of the URLs that a proxy in front of this server removes, such as /llm", _path_prefix
    ] = ""
    ssl_certfile: Annotated[Path | None, "serve HTTPS with this certificate, PEM", Path] = None
    ssl_keyfile: Annotated[Path | None, "its private key, PEM, if it is not in the same file", Path] = None
    ssl_keyfile_password: Annotated[str, "password of the private key"] = field(default="", repr=False)
    max_body_bytes: Annotated[
        int | None, "largest request body (default: 1 MiB, and 16 bytes for each token of the context)", int
    ] = None
    max_queue_length: Annotated[int, "generations that may wait for the engine; more are answered 429", int] = 256
    queue_full_status: Annotated[
        int, "status when the queue is full: 429, or 503 for a load balancer that then tries another replica", _status
    ] = 429
    reject_unknown_parameters: Annotated[
        bool, "answer 400 to unknown fields, instead of naming them in X-Ignored-Params", _yes
    ] = False
    allow_chat_template: Annotated[
        bool, "let requests bring a chat template of their own; for trusted clients only, as it is a program", _yes
    ] = False
    enable_prompt_tokens_details: Annotated[
        bool, "report in `usage` how many prompt tokens were in the KV cache; needs an engine that reports it", _yes
    ] = False
    log_level: Annotated[str, f"lines of this level and above: {', '.join(LOG_LEVELS)}", _level] = "info"
    log_format: Annotated[str, "text, or json for one object a line", _format] = "text"
    log_prompts: Annotated[bool, "write the prompts of requests, as text and as token ids, into the log", _yes] = False
    max_log_len: Annotated[
        int | None, "with --log-prompts, characters and token ids of a prompt at most (default: all)", _count
    ] = None
    disable_log_requests: Annotated[bool, "write no line when a request arrives", _yes] = False
    disable_log_stats: Annotated[bool, "write no line of throughput and load every 5 s", _yes] = False
    otlp_traces_endpoint: Annotated[
        str | None, "OpenTelemetry collector that gets a trace of each POST request (default: none)", _collector
    ] = None
    system_fingerprint: Annotated[bool, "send `system_fingerprint`, which identifies the engine", _yes] = False
    no_pages: Annotated[bool, "do not serve the chat page at /, and neither /status nor /docs", _yes] = False
    generation_config: Annotated[
        str,
        "default sampling of requests: auto for that of the checkpoint's generation_config.json, vllm for vLLM 0.4's",
        _defaults,
    ] = "auto"
    response_store: Annotated[
        Path | None, "SQLite file of the responses of /v1/responses, for `store` and `previous_response_id`", Path
    ] = None
    response_store_bytes: Annotated[
        int, "with --response-store, bytes of responses; the oldest are dropped", _count
    ] = 1024**3
    response_store_days: Annotated[int, "with --response-store, how long a response is stored", _count] = 30
    startup_timeout_s: Annotated[float, "how long to wait for Triton and its model at start", float] = 120.0
    request_timeout_s: Annotated[float, "longest time for one answer, queueing included", float] = 1800.0
    drain_seconds: Annotated[
        float,
        "how long new requests are still served after SIGTERM, while readiness answers 503; 0 after SIGINT",
        _seconds,
    ] = 5.0
    shutdown_timeout_s: Annotated[int, "time for running answers to finish after that", int] = 30

    @classmethod
    def from_args(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "Settings":
        """From the command line, else the environment, else the default. An empty variable counts as not set.

        Exits as argparse does if a value cannot be parsed.
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
    """Repeatable options that are set in the environment and not on the command line, as arguments."""
    options = [setting for setting in fields(Settings) if _is_several(setting) and not _is_secret(setting)]
    return [
        f"{_flag(option)}={value}"
        for option in options
        if given[option.name] is None
        for value in _split(environ.get(_variable(option), ""))
    ]


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    secrets = [setting for setting in fields(Settings) if _is_secret(setting)]
    secret_variables = ", ".join(f"{_variable(secret)} ({get_args(secret.type)[1]})" for secret in secrets)
    parser = argparse.ArgumentParser(
        prog=SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python -m frontend",
        allow_abbrev=False,  # vLLM's --api-key KEY must not be taken for a file's name
        description="Serve OpenAI's chat API from a Triton model.",
        epilog=f"Each option can be set in the environment too: --max-body-bytes as {ENV_PREFIX}MAX_BODY_BYTES. "
        f"There, several values are separated by commas. Only there: {secret_variables}.",
    )
    for setting in fields(Settings):
        if not _is_secret(setting):
            _add_option(parser, setting, environ.get(_variable(setting)) or None)
    return parser


def _add_option(parser: argparse.ArgumentParser, setting: "Field[Any]", from_environment: str | None) -> None:
    """Add one option. The environment is its default: argparse parses a default that is a string like an argument."""
    _, description, parse = get_args(setting.type)
    metavar = parse.__name__.strip("_").upper()
    default = setting.default if from_environment is None else from_environment
    if _is_several(setting):
        parser.add_argument(_flag(setting), action="append", type=parse, help=description, metavar=metavar)
    elif default is MISSING:
        parser.add_argument(_flag(setting), type=parse, required=True, help=description, metavar=metavar)
    else:
        shown = description if setting.default in (None, MISSING) else f"{description} (default: {setting.default})"
        bare: dict[str, Any] = {"nargs": "?", "const": True} if parse is _yes else {}
        parser.add_argument(_flag(setting), type=parse, default=default, help=shown, metavar=metavar, **bare)
