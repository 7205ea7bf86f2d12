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
from frontend.guides.spec import Guide, JsonSchema, OneOf, Part, Regex, Repeated, Sequence, Text

from .calls import TOOL_CALLS, Tool, ToolUse


def to_guide(tool_use: ToolUse, *, marker_is_control_token: bool) -> Guide | None:
    """The guide, to be compiled; None if the answer is free. Raises InvalidRequest by the path, as compiling does."""
    match tool_use.choice.mode:
        case "none":
            return None
        case "required":
            return Sequence((_optional(Text(" ")), _calls(tool_use)))
        case "named":
            index = [tool.name for tool in tool_use.tools].index(tool_use.choice.name)
            return Sequence((_optional(Text(" ")), _arguments(tool_use.tools[index], index)))
    if marker_is_control_token:
        _check_not_strict(tool_use.tools)
        return None
    words = Regex(pattern=_words_without(TOOL_CALLS), param="tools")
    return Sequence((words, _optional(Sequence((Text(f"{TOOL_CALLS} "), _calls(tool_use))))))


def _check_not_strict(tools: Series[Tool]) -> None:
    for index, tool in enumerate(tools):
        if tool.strict:
            param = f"tools[{index}].function.strict"
            raise InvalidRequest(
                f"`{param}` cannot be promised with this model unless `tool_choice` demands a call.", param=param
            )


def _calls(tool_use: ToolUse) -> Part:
    """The array: one call, or more where they may be parallel."""
    calls = [
        Sequence((Text(f'{{"name": "{tool.name}", "arguments": '), _arguments(tool, index), Text("}")))
        for index, tool in enumerate(tool_use.tools)
    ]
    maximum = None if tool_use.parallel else 1
    array = Repeated(part=OneOf(tuple(calls)), separator=", ", minimum=1, maximum=maximum)
    return Sequence((Text("["), array, Text("]")))


def _arguments(tool: Tool, index: int) -> Part:
    param = f"tools[{index}].function.parameters"
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
