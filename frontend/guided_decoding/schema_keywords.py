"""The keywords of JSON Schema 2020-12, by what json_schema.py does with them."""

ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema"}
    | {"$defs", "definitions", "$vocabulary", "contentEncoding", "contentMediaType", "contentSchema"}
)
"""Keywords that do not affect which values are valid."""

FAMILIES = {
    "object": frozenset(
        {"properties", "required", "additionalProperties", "patternProperties", "propertyNames"}
        | {"minProperties", "maxProperties"}
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}
"""Supported keywords, by the type of value that they apply to."""

REFUSED = frozenset(
    {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"}
    | {"contains", "minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties", "additionalItems"}
    | {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "id"}
)
"""Unsupported keywords. Keywords that no draft defines are ignored, as the specification demands."""
