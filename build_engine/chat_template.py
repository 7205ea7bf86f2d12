"""The chat template of a checkpoint, by the rules of the frontend: without one it would not start.

Checked before a build, which may take an hour. Not here: rendering a client's conversation, see frontend/text.
"""

import os
from pathlib import Path
from typing import Any

from .checkpoint_files import read_json_object, read_small
from .errors import CheckpointError
from .regular_file import MIB

TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE, TEMPLATE_JSON = "chat_template.jinja", "chat_template.json"
_TEMPLATE_BYTES = 4 * MIB
"""The largest in public checkpoints have some 20 KiB."""

_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")

_CONVERSATION = [
    {"role": "user", "content": "probe a"},
    {"role": "assistant", "content": "probe b"},
    {"role": "user", "content": "probe c"},
]
"""What the frontend renders at start too."""


def find_chat_template(checkpoint: Path, given: Path | None) -> str:
    """The text of the file `given`, else of chat_template.jinja, else the one in tokenizer_config.json.

    If that has several, the one named `default`. Raises CheckpointError for none, or for a file that is no text.
    """
    if given is not None:
        return _read_text(given)
    if os.path.lexists(checkpoint / TEMPLATE):
        return _read_text(checkpoint / TEMPLATE)
    template = read_json_object(checkpoint / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):
        named = (entry for entry in template if isinstance(entry, dict))
        template = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise _missing(checkpoint)
    return template


def check_chat_template(checkpoint: Path, given: Path | None) -> None:
    """Raises CheckpointError as `find_chat_template`, and for a template that renders no plain conversation."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # transformers would warn that PyTorch is absent
    from transformers.utils.chat_template_utils import render_jinja_template  # takes a second to load

    source = find_chat_template(checkpoint, given)
    config = read_json_object(checkpoint / TOKENIZER_CONFIG)
    tokens: dict[str, Any] = {name: _text(config.get(name)) for name in _TOKENS}
    try:
        render_jinja_template(
            conversations=[_CONVERSATION], chat_template=source, add_generation_prompt=True,
            **{name: text for name, text in tokens.items() if text},
        )  # fmt: skip
    except Exception as error:  # a template may raise any exception
        raise CheckpointError(
            f"{checkpoint}: its chat template renders no plain conversation ({error}); accepted: one that does,"
            " or another with --chat-template FILE"
        ) from error


def _read_text(file: Path) -> str:
    try:
        return read_small(file, _TEMPLATE_BYTES).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file.name}: not UTF-8 ({error}); accepted: a chat template") from error


def _missing(checkpoint: Path) -> CheckpointError:
    """Some tools write the template to a file of its own, which only few programs read."""
    if (checkpoint / TEMPLATE_JSON).exists():
        return CheckpointError(
            f"{TEMPLATE_JSON}: holds the only chat template, and is not read; accepted: {TEMPLATE}, a file with the"
            f" text of its field chat_template, or that field in {TOKENIZER_CONFIG}"
        )
    return CheckpointError(
        f"{checkpoint}: no chat template; accepted: {TEMPLATE}, chat_template in {TOKENIZER_CONFIG}, or one that is"
        " given with --chat-template FILE"
    )


def _text(token: Any) -> str:
    """Hugging Face writes a token as a string or as an object that describes it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
