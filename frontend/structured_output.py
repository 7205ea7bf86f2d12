"""What a body wants its answers to look like, as one guide: OpenAI's response_format, vLLM's names for the same, tools.

Pure. Refuses grammars: guides/ makes them of what comes out of here.
"""

from collections.abc import Iterator

import orjson

from .errors import InvalidRequest, UnsupportedParameter
from .guides import Choice, Grammar, Guide, JsonObject, JsonSchema, Regex, Vocabulary
from .guides.spec import field_of
from .protocol.fields import ResponseFormat, SamplingFields
from .served_model import ServedModel
from .tools.calls import NO_TOOLS, TOOL_CALLS, ToolUse
from .tools.guide import to_guide as to_tools_guide


def to_guide(body: SamplingFields, model: ServedModel, tool_use: ToolUse = NO_TOOLS) -> Guide | None:
    """The guide, to be compiled; None if the answers are free.

    Raises InvalidRequest for two wishes that exclude each other, UnsupportedParameter if the engine cannot do it.
    """
    wishes = list(_wishes(body))
    if len(wishes) > 1:
        first, second = map(field_of, wishes[:2])
        raise InvalidRequest(f"`{first}` and `{second}` exclude each other; send one.", param=second)
    can_guide = "guide" in model.engine.honours
    marker_is_text = model.tokenizer.control_token_id(TOOL_CALLS) is None
    guide = wishes[0] if wishes else None
    if tool_use.tools:
        guide = to_tools_guide(tool_use, answer=guide, can_guide_marker=can_guide and marker_is_text)
    if guide is not None and not can_guide:
        param = field_of(guide)
        raise UnsupportedParameter(f"The loaded engine cannot honour `{param}`: it has no input for it.", param=param)
    return guide


def vocabulary_of(model: ServedModel) -> Vocabulary:
    """What guides are compiled for. Control tokens are no part of an answer."""
    end_tokens = model.end_tokens
    return Vocabulary(
        token_bytes=dict(model.tokenizer.bytes_of(skip_special_tokens=True)),
        stop_token_ids=(end_tokens.end_id, *sorted(end_tokens.other_end_ids)),
    )


def _wishes(body: SamplingFields) -> Iterator[Guide]:
    if body.response_format is not None:
        yield from _of_response_format(body.response_format)
    newer = body.structured_outputs
    for prefix, wishes in (
        ("guided_", (body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar, None)),
        (
            "structured_outputs.",
            newer and (newer.json_, newer.regex, newer.choice, newer.grammar, newer.json_object or None),
        ),
    ):
        json, regex, choice, grammar, json_object = wishes or (None,) * 5
        if json is not None:
            yield JsonSchema(schema=_parsed(json, f"{prefix}json"), param=f"{prefix}json")
        if regex is not None:
            yield Regex(pattern=regex, param=f"{prefix}regex")
        if choice is not None:
            yield Choice(choices=tuple(choice), param=f"{prefix}choice")
        if grammar is not None:
            yield Grammar(ebnf=grammar, param=f"{prefix}grammar")
        if json_object is not None:
            yield JsonObject(param=f"{prefix}json_object")


def _of_response_format(wish: ResponseFormat) -> Iterator[Guide]:
    if wish.type == "json_object":
        yield JsonObject(param="response_format")
    elif wish.type == "json_schema":
        param = "response_format.json_schema"
        if wish.json_schema is None or wish.json_schema.schema_ is None:
            raise InvalidRequest(f"`{param}` needs a `name` and a `schema`.", param=param)
        yield JsonSchema(schema=wish.json_schema.schema_, param=f"{param}.schema")


def _parsed(schema: object, param: str) -> dict[str, object] | bool:
    """A schema may come as JSON text, as with vLLM."""
    if isinstance(schema, str):
        try:
            schema = orjson.loads(schema)
        except orjson.JSONDecodeError as exc:
            raise InvalidRequest(f"`{param}` is no JSON: {exc}.", param=param) from exc
    if not isinstance(schema, dict | bool):
        raise InvalidRequest(f"`{param}` is no JSON Schema, which is an object.", param=param)
    return schema
