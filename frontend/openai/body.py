"""What every request body has in common: strict types, fields that are kept although no type declares them, and the
known parameters that it refuses.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict


class Unsupported(NamedTuple):
    """Why a known parameter is refused, and the values (beside null) that ask for nothing and are accepted."""

    reason: str
    accepted: Sequence[Any] = ()


class Body(BaseModel):
    """A JSON object of a request. A wrong type is an error. Extra fields are kept in `model_extra`, because clients
    send what other servers know; `openai/unsupported.py` refuses or reports them.

    `unsupported`: the known parameters that this body refuses, by name.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    unsupported: ClassVar[Mapping[str, Unsupported]] = {}
