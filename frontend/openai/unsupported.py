"""Parameters that no wire type declares: known ones are refused by name, all others are reported as ignored."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from frontend.errors import UnsupportedParameter

from .body import Body, Unsupported

_NO_INPUT = "neither engine has an input for it"
_NO_TWO_DIMENSIONS = "Triton's generate extension cannot carry its tensor"
_NO_BEAMS = "answers are sampled, not searched for"
_TEXT_ONLY = "the model knows text only"

UNSUPPORTED: Mapping[str, Unsupported] = {
    # OpenAI's
    "functions": Unsupported("use `tools`", ([],)),
    "function_call": Unsupported("use `tool_choice`", ("none", "auto")),
    "modalities": Unsupported(_TEXT_ONLY, (["text"],)),
    "audio": Unsupported(_TEXT_ONLY),
    "web_search_options": Unsupported("there is no search"),
    "suffix": Unsupported("the model was not made for filling in", ("",)),
    # vLLM's
    "best_of": Unsupported("neither engine ranks answers", (1,)),
    "use_beam_search": Unsupported(_NO_BEAMS, (False,)),
    "length_penalty": Unsupported(_NO_BEAMS, (1.0,)),
    "early_stopping": Unsupported(_NO_BEAMS, (False,)),
    "bad_words": Unsupported(_NO_TWO_DIMENSIONS, ([],)),
    "allowed_token_ids": Unsupported(_NO_INPUT, ([],)),
    "echo": Unsupported("it belongs to /v1/completions", (False,)),
    "documents": Unsupported("put them into a message", ([],)),
    "add_special_tokens": Unsupported("the chat template writes the token that begins a text", (False,)),
    "priority": Unsupported(_NO_INPUT, (0,)),
    "cache_salt": Unsupported(_NO_INPUT),
    "structural_tag": Unsupported("TensorRT-LLM's backend does not accept it"),
}
"""Known parameters that every generating endpoint refuses, unless its body declares them."""


def check_supported(body: Body) -> None:
    """Raises UnsupportedParameter for a known parameter, unless its value changes nothing."""
    for path, name, value in _undeclared(body):
        refused = body.unsupported.get(name)
        if refused is not None and not _changes_nothing(value, refused):
            accepted = "".join(f" or {json.dumps(neutral)}" for neutral in refused.accepted)
            raise UnsupportedParameter(
                f"`{path}` is not supported: {refused.reason}. Leave it out or send null{accepted}.", param=path
            )


def ignored_params(body: Body) -> list[str]:
    """The paths of fields that this server does not know, each once. They have no effect."""
    names = [path for path, name, value in _undeclared(body) if name not in body.unsupported and value is not None]
    return list(dict.fromkeys(names))


def _undeclared(body: BaseModel, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, name, value) of every field that no wire type declares, at any depth. Paths have no list indices."""
    for name, value in (body.model_extra or {}).items():
        yield path + name, name, value
    given = body.model_fields_set
    for name in [name for name in type(body).model_fields if name in given]:
        value = getattr(body, name)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, BaseModel):
                yield from _undeclared(child, f"{path}{name}.")


def _changes_nothing(value: Any, refused: Unsupported) -> bool:
    """Whether the value is null or accepted. True is not 1 in JSON, though it is in Python."""
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in refused.accepted
    )
