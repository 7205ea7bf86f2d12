"""What can be wrong with a guide, before it is known which field of the request it came in."""


class InvalidConstraint(ValueError):
    """The guide is refused; the message says why. `path` is where in it, filled in by whoever knows first."""

    path: str | None = None


class Unsatisfiable(InvalidConstraint):
    """Nothing is valid by this part of the guide."""
