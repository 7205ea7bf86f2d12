"""Everything an operator can set, once: the command line, the environment and the defaults all come from this list.

Refuses secrets, because a command line shows them, and serving limits, which belong to the engine's config.pbtxt.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args

ENV_PREFIX = "FRONTEND_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `python -m frontend` was told. Seconds end in `_s`, bytes in `_bytes`."""

    engine_dir: Annotated[Path, "published engine directory: tokenizer files and manifest.json"]
    model: Annotated[str, "name of the Triton model"] = "openvino"
    triton_url: Annotated[str, "where Triton serves HTTP"] = "http://127.0.0.1:8001"
    host: Annotated[str, "address to listen on"] = "127.0.0.1"
    port: Annotated[int, "port to listen on"] = 8000
    served_model_name: Annotated[
        tuple[str, ...], "name that clients may use; repeat it for several (default: the checkpoint's path)"
    ] = ()
    max_body_bytes: Annotated[int, "largest request body"] = 4 * 1024 * 1024
    max_queue_length: Annotated[int, "requests that may wait for the engine; more are answered 429"] = 256
    reject_unknown_parameters: Annotated[
        bool, "answer 400 to fields that nobody here knows, instead of naming them in X-Ignored-Params"
    ] = False
    startup_timeout_s: Annotated[float, "how long to wait for Triton and its model at start"] = 120.0
    request_timeout_s: Annotated[float, "longest time for one answer, queueing included"] = 1800.0
    shutdown_timeout_s: Annotated[int, "time for running answers to finish after SIGTERM"] = 30

    @classmethod
    def from_args(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "Settings":
        """Command line before environment before default. Exits as argparse does on what it cannot read."""
        parser = argparse.ArgumentParser(
            prog="python -m frontend",
            description="Serve OpenAI's chat API from a Triton model.",
            epilog=f"Each option can be set in the environment too: --max-body-bytes as {ENV_PREFIX}MAX_BODY_BYTES. "
            "There, several names are separated by commas.",
        )
        for setting in fields(cls):
            _add_option(parser, setting, environ.get(ENV_PREFIX + setting.name.upper()))
        given: dict[str, Any] = vars(parser.parse_args(argv))
        from_environment = environ.get(f"{ENV_PREFIX}SERVED_MODEL_NAME", "")
        given["served_model_name"] = tuple(given["served_model_name"] or filter(None, from_environment.split(",")))
        return cls(**given)


def _add_option(parser: argparse.ArgumentParser, setting: "Field[Any]", from_environment: str | None) -> None:
    """One option. argparse converts a default that is a string, so the environment is read like the command line."""
    kind, meaning = get_args(setting.type)
    flag = "--" + setting.name.replace("_", "-")
    default = setting.default if from_environment is None else from_environment
    if setting.default == ():
        parser.add_argument(flag, action="append", help=meaning, metavar="NAME")
    elif setting.default is MISSING:
        required = from_environment is None
        parser.add_argument(flag, type=kind, default=from_environment, required=required, help=meaning, metavar="PATH")
    else:
        shown = f"{meaning} (default: {setting.default})"
        parser.add_argument(flag, type=kind, default=default, help=shown, metavar=kind.__name__.upper())
