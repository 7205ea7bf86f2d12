"""POST /invocations, the one route that SageMaker calls: the body of a chat or of a completion, as in vLLM. Pure."""

from typing import Annotated, Any

from pydantic import Discriminator, RootModel, Tag

from frontend.openai.chat.request import to_chat_job
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.completions.request import to_completion_job
from frontend.openai.completions.types import CompletionRequest
from frontend.openai.job import Job
from frontend.openai.reply import Reply
from frontend.text.served_model import ServedModel


def _kind(body: Any) -> str:
    return "a completion" if isinstance(body, dict) and "prompt" in body and "messages" not in body else "a chat"


class InvocationRequest(
    RootModel[
        Annotated[
            Annotated[ChatCompletionRequest, Tag("a chat")] | Annotated[CompletionRequest, Tag("a completion")],
            Discriminator(_kind),
        ]
    ]
):
    """A body with `messages`, or with `prompt`. The tags have spaces, so that no field has the same name."""


def to_invocation_job(
    body: ChatCompletionRequest | CompletionRequest, model: ServedModel, reply: Reply, *, seed: int
) -> Job:
    """The job of a checked body. Raises InvalidRequest naming the field."""
    if isinstance(body, ChatCompletionRequest):
        return to_chat_job(body, model, reply, seed=seed)
    return to_completion_job(body, model, reply, seed=seed)
