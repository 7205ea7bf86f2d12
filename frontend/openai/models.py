"""GET /v1/models."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel


class ModelCard(BaseModel):
    """One served name; `max_model_len` is the context in tokens, as in vLLM."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int


class ModelList(BaseModel):
    """The served names."""

    object: Literal["list"] = "list"
    data: Sequence[ModelCard]
