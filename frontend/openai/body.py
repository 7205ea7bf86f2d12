"""The base of all request bodies: undeclared fields are kept, and a table of parameters to refuse."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict


class Unsupported(NamedTuple):
    """Why a known parameter is refused. `accepted` are the values beside null that change nothing, and so pass."""

    reason: str
    accepted: Sequence[Any] = ()


class Body(BaseModel):
    """A JSON object of a request. A value of the wrong type is an error.

    Numbers and booleans may be written otherwise, such as 5.0, "5" and "true", because vLLM reads them so. This is
    pydantic's lax mode; for JSON it differs in nothing else from the strict one.

    Undeclared fields are kept in `model_extra`, because clients also send parameters of other servers; unsupported.py
    refuses or reports them. `unsupported`: the known parameters that this body refuses, by name.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    unsupported: ClassVar[Mapping[str, Unsupported]] = {}
