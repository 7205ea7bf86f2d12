"""Write limits into the GPU model's config.pbtxt: its numbers change, its comments and everything else stay."""

import re
import shutil
from pathlib import Path

from build_engine.errors import RepositoryError
from build_engine.model_config import Limits, read_serving_config

_FIELDS = {
    "max_batch_size": r"^max_batch_size: (\d+)$",
    "preferred_batch_size": r"^ *preferred_batch_size: \[ (\d+) \]$",
    "max_queue_size": r"\bmax_queue_size: (\d+)",
}
"""Where Triton's own fields have their number."""
_PARAMETER = r'key: "{}", value: {{ string_value: "(\d+)" }}'


def write_limits(config_pbtxt: Path, limits: Limits, tp_size: int) -> list[str]:
    """Returns a line for each number that changed. Raises RepositoryError; then the file is as it was.

    Triton prefers a full batch, and queues as many requests again as run.
    """
    values = {
        "max_batch_size": limits.max_batch_size,
        "preferred_batch_size": limits.max_batch_size,
        "max_queue_size": limits.max_batch_size,
        "max_num_tokens": limits.max_num_tokens,
        "max_seq_len": limits.max_seq_len,
        "tensor_parallel_size": tp_size,
    }
    read_serving_config(config_pbtxt)
    text, changes = config_pbtxt.read_text(encoding="utf-8"), []
    for name, value in values.items():
        start, end = _number(config_pbtxt, text, name)
        if (found := text[start:end]) != str(value):
            changes.append(f"{name} {found} -> {value}")
            text = f"{text[:start]}{value}{text[end:]}"
    if changes:
        _replace(config_pbtxt, text)
    return changes


def _number(config_pbtxt: Path, text: str, name: str) -> tuple[int, int]:
    """Where the value of a field or parameter begins and ends in the text."""
    pattern = _FIELDS.get(name) or _PARAMETER.format(name)
    spans = [match.span(1) for match in re.finditer(pattern, text, re.MULTILINE)]
    if len(spans) != 1:
        raise RepositoryError(
            f"{config_pbtxt}: {name} was found {len(spans)} times; accepted: once, on one line as in the repository's"
        )
    return spans[0]


def _replace(config_pbtxt: Path, text: str) -> None:
    """By a file that has been read back, so that an interrupted write leaves the old one."""
    partial = config_pbtxt.with_name(f".{config_pbtxt.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        shutil.copymode(config_pbtxt, partial)
        read_serving_config(partial)
        partial.replace(config_pbtxt)
    except OSError as error:
        raise RepositoryError(f"{config_pbtxt}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
