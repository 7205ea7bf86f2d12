"""The keywords of JSON Schema 2020-12, by what becomes of them here."""

ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema"}
    | {"$defs", "definitions", "$vocabulary", "contentEncoding", "contentMediaType", "contentSchema"}
)
"""They say nothing about which answers are valid."""

FAMILIES = {
    "object": frozenset(
        {"properties", "required", "additionalProperties", "patternProperties", "propertyNames"}
        | {"minProperties", "maxProperties"}
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}
"""Keywords that are followed, by the type that they speak of."""

REFUSED = frozenset(
    {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"}
    | {"contains", "minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties", "additionalItems"}
    | {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "id"}
)
"""Known, and not followed. Keywords that neither this draft nor an earlier one knows are annotations by its rules."""
