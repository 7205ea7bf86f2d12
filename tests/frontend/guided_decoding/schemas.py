"""JSON Schemas for hypothesis to draw: all keywords, supported or not, in every combination."""

from typing import Any

from hypothesis import strategies as st

from frontend.guided_decoding.json_formats import FORMATS as KNOWN_FORMATS

Schemas = st.SearchStrategy[Any]

NAMES = st.sampled_from(["a", "b", "ab", "name", "x y", 'q"t', "ü", "type"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-20, 120),
    st.sampled_from([0.5, 1.0, -2.25, 1e3]),
    st.sampled_from(["", "a", "ab", "é", 'x"y', "\n", "a\\b"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=4
)
PATTERNS = st.sampled_from(
    [
        "^a+$",
        "[0-9]{2,4}",
        "^(ab|c)*$",
        "[^x]*",
        ".{3}",
        r"\d+-\w*",
        r"^\S+$",
        "a|^b$",
        "[äöü]+",
        "(?=a)b",
        "^[A-Z][a-z]{0,5}$",
        "",
        'x?"y',
        "\\u00e9+",
        r"[\s\S]{1,3}",
        r"(a)\1",
        "^a$|^b$",
        r"[\]\[]",
    ]
)
FORMATS = st.sampled_from([*KNOWN_FORMATS, "password", "", "binary"])
COUNTS = st.integers(0, 4)
LIMITS = st.one_of(
    st.integers(-200, 200),
    st.floats(-1e4, 1e4),
    st.sampled_from([0, 0.5, 1.5, -0.25, 0.1, 99.999, 1e-7, 12345.678, -3.0, 1e19, 2**63 - 1, 2**53 + 1]),
)
REFERENCES = st.sampled_from([{"$ref": ref} for ref in ("#", "#/$defs/one", "#/$defs/two", "#/$defs/none")])


def _of(always: dict[str, Schemas], /, **optional: Schemas) -> Schemas:
    return st.fixed_dictionaries(always, optional=optional)


LEAVES = st.one_of(
    st.booleans(),
    _of({"type": st.just("string")}, minLength=COUNTS, maxLength=st.integers(0, 8)),
    _of({"type": st.just("string")}, pattern=PATTERNS, maxLength=st.just(9)),
    _of({"type": st.just("string"), "format": FORMATS}),
    _of(
        {"type": st.sampled_from(["integer", "number", ["integer", "null"]])},
        minimum=LIMITS,
        maximum=LIMITS,
        exclusiveMinimum=LIMITS,
        exclusiveMaximum=LIMITS,
        multipleOf=st.sampled_from([1, 2, 7, 0.5]),
    ),
    _of({"type": st.sampled_from(["integer", "number"])}, minimum=LIMITS),
    _of({"type": st.sampled_from(["integer", "number"])}, exclusiveMaximum=LIMITS),
    _of({"type": st.sampled_from(["boolean", "null", "object", "array"])}),
    _of({"enum": st.lists(VALUES, min_size=1, max_size=4)}, type=st.sampled_from(["string", "number"])),
    _of({"const": VALUES}),
    REFERENCES,
    st.sampled_from([{}, {"minimum": 3}, {"maxLength": 2}, {"required": ["a"]}]),
)


def _containers(inner: Schemas) -> Schemas:
    properties = st.dictionaries(NAMES, inner, max_size=4)
    required = st.lists(NAMES, max_size=3, unique=True)
    some = st.lists(inner, min_size=1, max_size=3)
    usual = _of({}, type=st.just("object"), properties=properties, required=required, title=st.just("t"))
    closed = _of({"properties": properties, "additionalProperties": inner | st.just(False)}, required=required)
    unusual = _of(
        {"type": st.just("object")},
        properties=properties,
        required=required,
        minProperties=st.integers(0, 2),
        maxProperties=COUNTS,
        patternProperties=st.dictionaries(PATTERNS, inner, max_size=2),
        propertyNames=inner,
        additionalProperties=inner,
    )
    array = _of(
        {},
        type=st.sampled_from(["array", ["array", "string"]]),
        items=inner,
        prefixItems=some,
        minItems=COUNTS,
        maxItems=COUNTS,
        uniqueItems=st.booleans(),
    )
    combined = _of({"anyOf": some}) | _of({"oneOf": some}) | _of({"allOf": some}) | REFERENCES
    conditional = st.one_of(
        _of({"not": inner}),
        _of({"if": inner}, **{"then": inner, "else": inner}),
        _of({"dependentRequired": st.dictionaries(NAMES, required, max_size=2)}),
        _of({"dependentSchemas": st.dictionaries(NAMES, inner, max_size=2)}),
    )
    unsupported = _of({"contains": inner}) | st.sampled_from([{"unevaluatedProperties": False}, {"$anchor": "z"}])
    tagged = st.lists(_of({"properties": properties, "type": st.just("object")}, required=required), max_size=3)
    combined |= _of({"oneOf": tagged.filter(bool)}) | conditional
    merged = st.builds(_merge, usual | closed | array | inner, combined)
    return st.one_of(usual, closed, unusual, array, combined, merged, st.builds(_merge, inner, unsupported))


def _merge(one: Any, other: Any) -> Any:
    return {**one, **other} if isinstance(one, dict) else other


def json_schemas() -> Schemas:
    """Complete schemas, with two definitions to refer to."""
    schemas = st.recursive(LEAVES, _containers, max_leaves=6)
    return st.builds(lambda root, one, two: _merge(root, {"$defs": {"one": one, "two": two}}), schemas, schemas, LEAVES)
