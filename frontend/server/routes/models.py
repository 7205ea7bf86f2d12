"""GET /v1/models: the list, and each model by its name."""

import hashlib

from fastapi import APIRouter

from frontend.errors import ModelNotFound
from frontend.openai.models import ModelCard, ModelList, ModelPermission
from frontend.server.service import Service

from .dependencies import ServiceOf
from .openapi import READS, failures

router = APIRouter()


@router.get("/v1/models", responses=READS)
async def list_models(service: ServiceOf) -> ModelList:
    """The names that `model` may have."""
    return ModelList(data=[_model_card(name, service) for name in service.model_names])


@router.get("/v1/models/{model:path}", responses=READS | failures(ModelNotFound))
async def retrieve_model(model: str, service: ServiceOf) -> ModelCard:
    """One served name, which may contain slashes."""
    for name in service.model_names:
        # Clients and proxies that normalise URLs drop the slash that a name begins with.
        if model in (name, name.removeprefix("/")):
            return _model_card(name, service)
    raise ModelNotFound(model, service.model_names)


def _model_card(name: str, service: Service) -> ModelCard:
    number = hashlib.sha256(name.encode()).hexdigest()[:32]
    return ModelCard(
        id=name,
        created=service.started,
        owned_by="mixtral-triton",
        root=service.model_names[0],
        max_model_len=service.served_model.engine.max_seq_len,
        permission=[ModelPermission(id=f"modelperm-{number}", created=service.started)],
    )
