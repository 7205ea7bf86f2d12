"""A body to the constraint on its answers: OpenAI's formats, vLLM's `guided_*` fields, tools. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from frontend.errors import InvalidRequest, UnsupportedParameter
from frontend.guided_decoding import Choice, Constraint, Grammar, JsonObject, JsonSchema, Regex
from frontend.guided_decoding.spec import param_of
from frontend.guided_decoding.tool_calls import tool_use_constraint
from frontend.text.served_model import ServedModel
from frontend.text.tools import NO_TOOLS, TOOL_CALLS, ToolUse

from .fields import CompletionFields, ResponseFormat, SamplingFields, StructuredOutputs


def to_constraint(
    body: SamplingFields, response_format: Constraint | None, model: ServedModel, tool_use: ToolUse = NO_TOOLS
) -> Constraint | None:
    """The constraint to compile; None if there is none. `response_format` is the constraint of OpenAI's field.

    Raises InvalidRequest for two constraints at once or one that must not end, UnsupportedParameter if the engine has
    no guided decoding.
    """
    constraints = [*([] if response_format is None else [response_format]), *_vllm_constraints(body)]
    if len(constraints) > 1:
        first, second = map(param_of, constraints[:2])
        raise InvalidRequest(f"`{first}` and `{second}` exclude each other; send one.", param=second)
    can_guide = "guide" in model.engine.honours
    marker_is_text = model.tokenizer.special_token_id(TOOL_CALLS) is None
    constraint = constraints[0] if constraints else None
    if tool_use.tools:
        constraint = tool_use_constraint(tool_use, answer=constraint, can_guide_marker=can_guide and marker_is_text)
    if constraint is None:
        return None
    if not can_guide:
        param = param_of(constraint)
        raise UnsupportedParameter(f"The loaded engine cannot honour `{param}`: it has no input for it.", param=param)
    _check_end(body, constraint)
    return constraint


def _check_end(body: SamplingFields, constraint: Constraint) -> None:
    """Raises InvalidRequest for parameters that forbid the end where the grammar allows nothing else.

    With `ignore_eos` the engine would ask the grammar for more after its end, with `min_tokens` no token would be
    allowed there. TensorRT-LLM ends all active requests in both cases.
    """
    for param, forbids_end in (("ignore_eos", body.ignore_eos), ("min_tokens", body.min_tokens)):
        if forbids_end:
            raise InvalidRequest(
                f"`{param}` does not go with `{param_of(constraint)}`, which decides where the answer ends.",
                param=param,
            )


def response_format_constraint(body: CompletionFields) -> Constraint | None:
    """The constraint of `response_format`."""
    if (given := body.response_format) is None:
        return None
    if given.schema_ is not None:
        return _bare_schema_constraint(given, given.schema_)
    schema = None if given.json_schema is None else given.json_schema.schema_
    return format_constraint(given.type, schema, "response_format", "response_format.json_schema")


def _bare_schema_constraint(given: ResponseFormat, schema: Mapping[str, Any]) -> Constraint:
    """The constraint of `response_format.schema`, as llama.cpp has it. An empty schema is that of any object."""
    param = "response_format.schema"
    if given.type == "text" or given.json_schema is not None:
        raise InvalidRequest(
            f"`{param}` goes with the types `json_object` and `json_schema`, and not with a `json_schema` beside it.",
            param=param,
        )
    return JsonSchema(schema=schema, param=param) if schema else JsonObject(param="response_format")


def format_constraint(kind: str, schema: Mapping[str, Any] | None, param: str, schema_param: str) -> Constraint | None:
    """The constraint of a format of type `kind`: `text`, `json_object` or `json_schema`.

    `param` and `schema_param` are the paths of the format and of its schema's wrapper in the request.
    """
    if kind == "json_object":
        return JsonObject(param=param)
    if kind != "json_schema":
        return None
    if schema is None:
        raise InvalidRequest(f"`{schema_param}` needs a `name` and a `schema`.", param=schema_param)
    return JsonSchema(schema=schema, param=f"{schema_param}.schema")


def _vllm_constraints(body: SamplingFields) -> Iterator[Constraint]:
    """The constraints of vLLM's fields: `guided_*` of 0.4, and `structured_outputs`, which came later."""
    older = StructuredOutputs.model_construct(
        json_=body.guided_json, regex=body.guided_regex, choice=body.guided_choice, grammar=body.guided_grammar
    )
    yield from _constraints(older, "guided_")
    if body.structured_outputs is not None:
        yield from _constraints(body.structured_outputs, "structured_outputs.")


def _constraints(given: StructuredOutputs, prefix: str) -> Iterator[Constraint]:
    if given.json_ is not None:
        yield JsonSchema(schema=_parsed(given.json_, f"{prefix}json"), param=f"{prefix}json")
    if given.regex is not None:
        yield Regex(pattern=given.regex, param=f"{prefix}regex")
    if given.choice is not None:
        yield Choice(choices=tuple(given.choice), param=f"{prefix}choice")
    if given.grammar is not None:
        yield Grammar(ebnf=given.grammar, param=f"{prefix}grammar")
    if given.json_object:
        yield JsonObject(param=f"{prefix}json_object")


def _parsed(schema: object, param: str) -> dict[str, object] | bool:
    """The schema, which may be JSON text, as in vLLM."""
    if isinstance(schema, str):
        try:
            schema = orjson.loads(schema)
        except orjson.JSONDecodeError as exc:
            raise InvalidRequest(f"`{param}` is no JSON: {exc}.", param=param) from exc
    if not isinstance(schema, dict | bool):
        raise InvalidRequest(f"`{param}` is no JSON Schema, which is an object.", param=param)
    return schema
