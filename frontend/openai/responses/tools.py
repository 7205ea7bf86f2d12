"""`tools` of /v1/responses: functions, functions in namespaces, OpenAI's built-in tools, which do not exist here."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from frontend.errors import InvalidRequest
from frontend.openai.body import Body
from frontend.openai.fields import FAIL_FAST
from frontend.openai.tools.types import MAX_TOOLS, FunctionDefinition, FunctionTyped

_BUILT_IN = frozenset({
    "apply_patch", "code_interpreter", "computer", "computer_use_preview", "file_search", "image_generation",
    "local_shell", "mcp", "programmatic_tool_calling", "shell", "tool_search", "web_search", "web_search_preview",
})  # fmt: skip
"""OpenAI's tools that its own servers run, or that its models were trained for (openai-python, responses/tool.py)."""


class ResponseTool(FunctionDefinition, FunctionTyped):
    """A function, without chat's nesting."""


class Namespace(Body):
    """Functions under a name, which calls of them repeat as `namespace`."""

    type: Literal["namespace"]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    tools: Annotated[list[ResponseTool], FAIL_FAST]


class BuiltInTool(Body):
    """A tool that does not exist here, and that the model is not offered: its type becomes an undeclared field."""


def _kind(tool: Any) -> str:
    """What is no namespace and not built-in must be a function."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind == "namespace":
        return "a namespace"
    return "a built-in tool" if isinstance(kind, str) and kind in _BUILT_IN else "a function"


ToolField = Annotated[
    Annotated[ResponseTool, Tag("a function")]
    | Annotated[Namespace, Tag("a namespace")]
    | Annotated[
        BuiltInTool,
        BeforeValidator(lambda tool: {tool["type"]: tool}, json_schema_input_type=dict[str, Any]),
        Tag("a built-in tool"),
    ],
    Discriminator(_kind),
]
"""One element of `tools`. The tags have spaces, so that no field of a tool has the same name."""


def functions_of(tools: Sequence[ResponseTool | Namespace | BuiltInTool]) -> Mapping[str, ResponseTool]:
    """The functions by their paths in the request, those of namespaces too. Raises InvalidRequest for too many."""
    functions: dict[str, ResponseTool] = {}
    for index, tool in enumerate(tools):
        if isinstance(tool, ResponseTool):
            functions[f"tools[{index}]"] = tool
        elif isinstance(tool, Namespace):
            functions |= {f"tools[{index}].tools[{number}]": inner for number, inner in enumerate(tool.tools)}
    if len(functions) > MAX_TOOLS:
        raise InvalidRequest(
            f"`tools` has {len(functions)} functions; accepted: {MAX_TOOLS}, those of namespaces included.",
            param="tools",
        )
    return functions


def namespaces_of(tools: Sequence[ResponseTool | Namespace | BuiltInTool]) -> Mapping[str, str]:
    """The namespace of each function that has one, by the function's name."""
    return {tool.name: space.name for space in tools if isinstance(space, Namespace) for tool in space.tools}
