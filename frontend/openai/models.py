"""GET /v1/models."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel


class ModelPermission(BaseModel):
    """vLLM's object, which OpenAI once had too: the same for every model."""

    id: str
    object: Literal["model_permission"] = "model_permission"
    created: int
    allow_create_engine: Literal[False] = False
    allow_sampling: Literal[True] = True
    allow_logprobs: Literal[True] = True
    allow_search_indices: Literal[False] = False
    allow_view: Literal[True] = True
    allow_fine_tuning: Literal[False] = False
    organization: Literal["*"] = "*"
    group: None = None
    is_blocking: Literal[False] = False


class ModelCard(BaseModel):
    """One served name, as in vLLM: `root` is the first name, and `max_model_len` the context in tokens."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    parent: None = None
    max_model_len: int
    permission: Sequence[ModelPermission]


class ModelList(BaseModel):
    """The served names."""

    object: Literal["list"] = "list"
    data: Sequence[ModelCard]
