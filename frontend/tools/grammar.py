"""What the engine may write where functions can be called: a grammar that makes every call's arguments fit its schema.

    auto      words without the marker, then nothing, or the marker and an array of calls
    required  the array: the prompt has the marker already
    named     the arguments of the function: the prompt has all before them

The layout is fixed, json.dumps's; only at the beginning a space may stand, as SentencePiece's first token has one.

A grammar spells tokens by their text and a control token has none, so it cannot contain the marker of a vocabulary that
has it as one (Mistral's from v3 on). There `required` and `named` are as above, while `auto` has no grammar: the model
calls as it likes, the marker is given a text for the parser to see, and nobody promises more than what the parser looks
at. Refuses `strict` there, and everywhere a schema that cannot be promised.
"""

from collections.abc import Sequence

from frontend.errors import InvalidRequest
from frontend.guides.ebnf import Rules, literal, one_of, optional, sequence
from frontend.guides.json_text import array_of
from frontend.guides.spec import GuideSpec, expression

from .calls import TOOL_CALLS, Tool, ToolUse

_SPACE = optional(literal(" "))


def tools_ebnf(tool_use: ToolUse, *, marker_is_control_token: bool) -> str | None:
    """The grammar as EBNF; None if the answer is free. Raises InvalidRequest by the path of what cannot be promised."""
    mode = tool_use.choice.mode
    if mode == "auto" and marker_is_control_token:
        _check_not_strict(tool_use.tools)
    if mode == "none" or (mode == "auto" and marker_is_control_token):
        return None
    rules = Rules()
    if mode == "named":
        named = [tool.name for tool in tool_use.tools].index(tool_use.choice.name)
        return rules.text(sequence([_SPACE, _arguments(rules, tool_use.tools[named], named)]))
    calls = _calls(rules, tool_use)
    if mode == "required":
        return rules.text(sequence([_SPACE, calls]))
    return rules.text(sequence([_words(rules), optional(sequence([literal(f"{TOOL_CALLS} "), calls]))]))


def _check_not_strict(tools: Sequence[Tool]) -> None:
    for index, tool in enumerate(tools):
        if tool.strict:
            param = f"tools[{index}].function.strict"
            raise InvalidRequest(
                f"`{param}` cannot be promised with this model unless `tool_choice` demands a call.", param=param
            )


def _calls(rules: Rules, tool_use: ToolUse) -> str:
    """The array: one call, or more where they may be parallel."""
    calls = [
        sequence([literal(f'{{"name": "{tool.name}", "arguments": '), _arguments(rules, tool, index), literal("}")])
        for index, tool in enumerate(tool_use.tools)
    ]
    call = rules.add("call", one_of(calls))
    return array_of(literal("["), call, literal("]"), minimum=1, maximum=None if tool_use.parallel else 1)


def _arguments(rules: Rules, tool: Tool, index: int) -> str:
    param = f"tools[{index}].function.parameters"
    if tool.parameters.get("type", "object") != "object":
        raise InvalidRequest(f"`{param}` must be the schema of an object: arguments are one.", param=param)
    schema = {"type": "object", **tool.parameters}
    return expression(rules, GuideSpec(kind="json_schema", content=schema, param=param))


def _words(rules: Rules) -> str:
    """Any text without the marker. Its first character stands in it but once, which makes this short.

    A bracket either begins something else, and goes on with a character that the marker has not, or breaks off before
    the next bracket or the end.
    """
    bracket, rest = TOOL_CALLS[0], TOOL_CALLS[1:]
    differs, breaks_off = "", ""
    for character in reversed(rest):
        last = not differs
        other = f"[^\\{bracket}{_in_class(character)}]"
        differs = other if last else one_of([other, f"{literal(character)} {differs}"])
        breaks_off = "" if last else optional(f"{literal(character)} {breaks_off}")
    plain = f"[^\\{bracket}]*"
    beginning = rules.add("marker_beginning", f"{literal(bracket)} {breaks_off}")
    no_marker = rules.add("no_marker", f"{literal(bracket)} {differs}")
    return rules.add("words", f"{plain} ({beginning}* {no_marker} {plain})* {beginning}*")


def _in_class(character: str) -> str:
    return f"\\{character}" if character in "]^-\\" else character
