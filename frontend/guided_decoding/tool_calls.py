"""Tools to a constraint on the answer: every call in it has arguments that are valid by the tool's schema.

Those of a tool that is not `strict`, and whose schema cannot be guaranteed, are any JSON object.

What the model writes, by `tool_choice`:

    auto      text without the marker [TOOL_CALLS], then nothing, or the marker and an array of calls
    required  the array; the prompt already has the marker
    named     the arguments of the function; the prompt already has all before them

The layout is json.dumps's. Only the very beginning may be a space, because SentencePiece's first token has one.

A grammar spells tokens by their text. Where the marker is a special token (Mistral's vocabularies from v3 on) it has
no text, and no grammar can contain it. There `required` and `named` are as above, and `auto` has no constraint: the
parser reads calls as the model wrote them, and `strict` is refused, as it cannot be enforced.
"""

import re
from collections.abc import Sequence as Series

from frontend.errors import InvalidRequest
from frontend.text.tools import TOOL_CALLS, Tool, ToolUse

from .spec import Arguments, Constraint, Grammar, JsonSchema, OneOf, Part, Regex, Repeated, Sequence, Text, param_of


def tool_use_constraint(
    tool_use: ToolUse, *, answer: Constraint | None = None, can_guide_marker: bool
) -> Constraint | None:
    """The constraint on an answer that may call tools; None if there is none.

    `answer` is the constraint on an answer without calls. `can_guide_marker` is false where the marker is a special
    token, or the engine has no guided decoding. Raises InvalidRequest that names the field, as compiling does.
    """
    match tool_use.choice.mode:
        case "none":
            return answer
        case "required":
            return Sequence((_optional(Text(" ")), _calls(tool_use)))
        case "named":
            [tool] = [tool for tool in tool_use.tools if tool.name == tool_use.choice.name]
            return Sequence((_optional(Text(" ")), _arguments(tool)))
    if not can_guide_marker or isinstance(answer, Grammar):
        _check_needs_no_constraint(tool_use.tools, answer)
        return None
    calls = Sequence((Text(f"{TOOL_CALLS} "), _calls(tool_use)))
    if answer is not None:
        return OneOf((answer, calls))
    text = Regex(pattern=_text_without(TOOL_CALLS), param="tools")
    return Sequence((text, _optional(calls)))


def _check_needs_no_constraint(tools: Series[Tool], answer: Constraint | None) -> None:
    """Raises InvalidRequest for `answer` and for `strict`, which only a constraint could enforce."""
    if answer is not None:
        param = param_of(answer)
        raise InvalidRequest(
            f"`{param}` does not go with tools that this model is free to call; set `tool_choice`.", param=param
        )
    for tool in tools:
        if tool.strict:
            param = f"{tool.param}.strict"
            raise InvalidRequest(
                f"`{param}` cannot be promised with this model unless `tool_choice` demands a call.", param=param
            )


def _calls(tool_use: ToolUse) -> Part:
    """The array: one call, or more where they may be parallel."""
    calls = [
        Sequence((Text(f'{{"name": "{tool.name}", "arguments": '), _arguments(tool), Text("}")))
        for tool in tool_use.tools
    ]
    maximum = None if tool_use.parallel else 1
    array = Repeated(part=OneOf(tuple(calls)), separator=", ", minimum=1, maximum=maximum)
    return Sequence((Text("["), array, Text("]")))


def _arguments(tool: Tool) -> Part:
    param = tool.schema_param
    types = tool.parameters.get("type", "object")
    if types != "object" and not (isinstance(types, list) and "object" in types):
        raise InvalidRequest(f"`{param}` must be the schema of an object: arguments are one.", param=param)
    schema = JsonSchema(schema={**tool.parameters, "type": "object"}, param=param)
    return schema if tool.strict else Arguments(tool=tool.name, schema=schema, param=param)


def _optional(part: Part) -> Part:
    return Repeated(part=part, separator="", maximum=1)


def _text_without(marker: str) -> str:
    """A regular expression for text that does not contain `marker`, whose first character occurs in it only once.

    After each occurrence of that character the text follows the marker for a while, then ends, differs from it, or
    starts over with the same character. Each alternative runs on to the next occurrence: so xgrammar computes the
    token masks quickly, even right after a bracket.
    """
    first, *rest = map(re.escape, marker)
    goes_on = ""
    for character in reversed(rest):
        longer = f"|{character}{goes_on}" if goes_on else ""
        goes_on = f"(?:[^{first}{character}][^{first}]*{longer})?"
    return f"[^{first}]*(?:{first}{goes_on})*"
