"""What a body wants its answers to look like, as one guide: OpenAI's formats, vLLM's names for the same, tools.

Pure. Refuses grammars: guides/ makes them of what comes out of here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from frontend.errors import InvalidRequest, UnsupportedParameter
from frontend.guided_decoding import Choice, Constraint, Grammar, JsonObject, JsonSchema, Regex
from frontend.guided_decoding.spec import param_of
from frontend.guided_decoding.tool_calls import to_constraint as to_tools_guide
from frontend.openai.responses.types import ResponsesRequest
from frontend.text.served_model import ServedModel
from frontend.text.tools import NO_TOOLS, TOOL_CALLS, ToolUse

from .fields import CompletionFields, SamplingFields


def to_guide(
    body: CompletionFields | ResponsesRequest, model: ServedModel, tool_use: ToolUse = NO_TOOLS
) -> Constraint | None:
    """The guide, to be compiled; None if the answers are free.

    Raises InvalidRequest for two wishes that exclude each other, UnsupportedParameter if the engine cannot do it.
    """
    wishes = [*_format(body), *_wishes(body)]
    if len(wishes) > 1:
        first, second = map(param_of, wishes[:2])
        raise InvalidRequest(f"`{first}` and `{second}` exclude each other; send one.", param=second)
    can_guide = "guide" in model.engine.honours
    marker_is_text = model.tokenizer.control_token_id(TOOL_CALLS) is None
    guide = wishes[0] if wishes else None
    if tool_use.tools:
        guide = to_tools_guide(tool_use, answer=guide, can_guide_marker=can_guide and marker_is_text)
    if guide is not None and not can_guide:
        param = param_of(guide)
        raise UnsupportedParameter(f"The loaded engine cannot honour `{param}`: it has no input for it.", param=param)
    return guide


def _format(body: CompletionFields | ResponsesRequest) -> Iterator[Constraint]:
    """OpenAI's `response_format`, or `text.format`, which is the same in flat."""
    if isinstance(body, ResponsesRequest):
        if body.text is not None and (flat := body.text.format) is not None:
            schema = None if flat.name is None else flat.schema_
            yield from _of_format(flat.type, schema, "text.format", "text.format")
    elif (nested := body.response_format) is not None:
        schema = None if nested.json_schema is None else nested.json_schema.schema_
        yield from _of_format(nested.type, schema, "response_format", "response_format.json_schema")


def _of_format(kind: str, schema: Mapping[str, Any] | None, param: str, schema_param: str) -> Iterator[Constraint]:
    if kind == "json_object":
        yield JsonObject(param=param)
    elif kind == "json_schema":
        if schema is None:
            raise InvalidRequest(f"`{schema_param}` needs a `name` and a `schema`.", param=schema_param)
        yield JsonSchema(schema=schema, param=f"{schema_param}.schema")


def _wishes(body: SamplingFields) -> Iterator[Constraint]:
    """vLLM's names."""
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
