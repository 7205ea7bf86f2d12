"""Errors of a constraint, raised where it is not known which field of the request it came in."""


class InvalidConstraint(ValueError):
    """The constraint is wrong or not supported; the message says why.

    `path` is the place in a JSON Schema, as a JSON pointer; None as long as it is not known, and for other constraints.
    """

    path: str | None = None


class Unsatisfiable(InvalidConstraint):
    """No value is valid by this part of the constraint."""
