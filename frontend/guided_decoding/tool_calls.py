"""What the engine may write where functions can be called: a guide that makes every call's arguments fit its schema.

    auto      words without the marker, then nothing, or the marker and an array of calls
    required  the array: the prompt has the marker already
    named     the arguments of the function: the prompt has all before them

The layout is fixed, json.dumps's; only at the beginning a space may stand, as SentencePiece's first token has one.

A guide spells tokens by their text and a control token has none, so no guide can hold the marker of a vocabulary that
has it as one (Mistral's from v3 on). There `required` and `named` are as above, while `auto` has no guide: the model
calls as it likes, the marker is given a text for the parser to see, and nobody promises more than what the parser looks
at. Refuses `strict` there, and everywhere a schema that cannot be promised.
"""

import re
from collections.abc import Sequence as Series

from frontend.errors import InvalidRequest
from frontend.text.tools import TOOL_CALLS, Tool, ToolUse

from .spec import Constraint, Grammar, JsonSchema, OneOf, Part, Regex, Repeated, Sequence, Text, param_of


def to_guide(tool_use: ToolUse, *, answer: Constraint | None = None, can_guide_marker: bool) -> Constraint | None:
    """The guide, to be compiled; None if the answer is free. Raises InvalidRequest by the path, as compiling does.

    `answer` guides an answer that calls nothing. `can_guide_marker` is false where the marker is a control token, or
    the engine follows no guides.
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
        _check_nothing_is_promised(tool_use.tools, answer)
        return None
    calls = Sequence((Text(f"{TOOL_CALLS} "), _calls(tool_use)))
    if answer is not None:
        return OneOf((answer, calls))
    words = Regex(pattern=_words_without(TOOL_CALLS), param="tools")
    return Sequence((words, _optional(calls)))


def _check_nothing_is_promised(tools: Series[Tool], answer: Constraint | None) -> None:
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
    param = f"{tool.param}.parameters"
    if tool.parameters.get("type", "object") != "object":
        raise InvalidRequest(f"`{param}` must be the schema of an object: arguments are one.", param=param)
    return JsonSchema(schema={"type": "object", **tool.parameters}, param=param)


def _optional(part: Part) -> Part:
    return Repeated(part=part, separator="", maximum=1)


def _words_without(marker: str) -> str:
    """A regular expression of the texts that do not hold `marker`, whose first character stands in it but once.

    That character begins a part of the text that breaks off, or goes on with a character that the marker has not there.
    Each way leads to the end of the part: the masks of what may follow are then cheap, even behind a bracket.
    """
    first, *rest = map(re.escape, marker)
    goes_on = ""
    for character in reversed(rest):
        longer = f"|{character}{goes_on}" if goes_on else ""
        goes_on = f"(?:[^{first}{character}][^{first}]*{longer})?"
    return f"[^{first}]*(?:{first}{goes_on})*"
