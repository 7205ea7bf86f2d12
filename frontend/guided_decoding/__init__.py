"""Structured output: what a client wants an answer to look like, compiled before the engine sees it.

    guide = JsonSchema(schema={"type": "object"}, param="response_format.json_schema.schema")
    ebnf = await compiler.compile(guide)     # guided_decoding_guide_type "ebnf_grammar", guided_decoding_guide ebnf

Guides are values: JsonObject, JsonSchema, Regex, Choice and Grammar are a client's wishes and carry the field they came
in; Text, Sequence, OneOf and Repeated put them together:

    call = Sequence((Text('{"name": "f", "arguments": '), JsonSchema(schema=..., param=...), Text("}")))
    calls = Sequence((Text("["), Repeated(part=OneOf((call, ...)), separator=", ", minimum=1), Text("]")))
    calls_or_prose = OneOf((calls, Regex(pattern=r"[^\\[][\\s\\S]*", param="tools")))

JSON comes in one fixed layout, that of Python's json.dumps (`, ` and `: `), so that no model can fill an answer with
white space. `GuideCompiler(vocabulary).compile(guide)` raises InvalidRequest that names the field, and in a schema the
path, for everything that is wrong, not supported, or takes too long. `to_ebnf_text` translates without compiling.
"""

from .compiler import GuideCompiler
from .spec import Choice, Constraint, Grammar, JsonObject, JsonSchema, OneOf, Part, Regex, Repeated, Sequence, Text
from .to_ebnf import to_ebnf_text
from .worker_messages import GuideLimits, Vocabulary

__all__ = [
    "Choice",
    "Constraint",
    "Grammar",
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
