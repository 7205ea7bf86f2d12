"""Whether a value is a JSON Schema of draft 2020-12."""

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from .errors import InvalidConstraint


def check_schema(schema: Any) -> None:
    """Raises InvalidConstraint if `schema` is not a valid JSON Schema."""
    if isinstance(schema, bool | dict):
        error = best_match(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema))
        if error is None:
            return
        found = InvalidConstraint(f"is not valid JSON Schema (draft 2020-12): {error.message[:200]}")
        found.path = "#" + "".join(f"/{part}" for part in error.absolute_path)
        raise found
    raise InvalidConstraint(f"a JSON Schema is an object or a boolean; found {json.dumps(schema)[:100]}")
