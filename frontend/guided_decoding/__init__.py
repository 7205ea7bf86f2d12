"""Structured output: a constraint on the answer, translated to a grammar and compiled before the engine gets it.

    constraint = JsonSchema(schema={"type": "object"}, param="response_format.json_schema.schema")
    guide = await compiler.compile(constraint)  # guide.ebnf is guided_decoding_guide; its type is "ebnf_grammar"

Constraints are values. JsonObject, JsonSchema, Regex, Choice and Grammar come from the client and carry the request
field they came in. Arguments are those of a tool that is not strict. Text, Sequence, OneOf and Repeated compose them:

    call = Sequence((Text('{"name": "f", "arguments": '), JsonSchema(schema=..., param=...), Text("}")))
    calls = Sequence((Text("["), Repeated(part=OneOf((call, ...)), separator=", ", minimum=1), Text("]")))
    calls_or_text = OneOf((calls, Regex(pattern=r"[^\\[][\\s\\S]*", param="tools")))

JSON has one fixed layout, that of Python's json.dumps (`, ` and `: `), so that no model can fill an answer with white
space. `GuideCompiler(vocabulary).compile(constraint)` raises InvalidRequest for a constraint that is wrong, not
supported or too slow; its message names the field, and in a schema the path. `to_ebnf_text` translates only.
"""

from .compiler import GuideCompiler
from .spec import (
    Arguments,
    Choice,
    Constraint,
    Grammar,
    Guide,
    JsonObject,
    JsonSchema,
    OneOf,
    Part,
    Regex,
    Repeated,
    Sequence,
    Text,
)
from .to_ebnf import to_ebnf_text
from .vocabulary import Vocabulary
from .worker_messages import GuideLimits

__all__ = [
    "Arguments",
    "Choice",
    "Constraint",
    "Grammar",
    "Guide",
    "GuideCompiler",
    "GuideLimits",
    "JsonObject",
    "JsonSchema",
    "OneOf",
    "Part",
    "Regex",
    "Repeated",
    "Sequence",
    "Text",
    "Vocabulary",
    "to_ebnf_text",
]
