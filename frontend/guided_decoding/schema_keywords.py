"""The keywords of JSON Schema 2020-12, by what json_schema.py does with them."""

TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
"""What `type` names."""

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
    {"contains", "minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties"}
    | {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"}
)
"""Unsupported keywords."""

KNOWN = frozenset(
    {"type", "const", "enum", "$ref", "allOf", "anyOf", "oneOf"}
    | {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "$not"}
).union(REFUSED, *FAMILIES.values())
"""Keywords that affect which values are valid. All others are ignored, as the specification demands."""
