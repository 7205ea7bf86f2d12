"""What becomes of each request parameter, as the README's table: `python -m tests.parameter_table` prints it.

Made from the wire types, the refusals and the inputs that both engines' config.pbtxt declare, so that it cannot drift.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf import json_format, text_format
from pydantic import BaseModel
from tritonclient.grpc.model_config_pb2 import ModelConfig

from frontend.generation import Engine
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.completions.types import CompletionRequest
from frontend.openai.responses.types import ResponsesRequest
from frontend.openai.sampling import ENGINE_DEPENDENT, REFUSED, REFUSED_BY_RESPONSES, as_json
from frontend.triton.tensors import read_engine

ROOT = Path(__file__).parents[1]
ENDPOINTS: Mapping[str, type[BaseModel]] = {
    "chat": ChatCompletionRequest,
    "completions": CompletionRequest,
    "responses": ResponsesRequest,
}
ENGINES = {"GPU": "tensorrt_llm", "CPU": "openvino"}
GUIDED = (
    "response_format", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "tools",
)  # fmt: skip
HEAD = "| Parameter | Where | GPU | CPU | |\n|---|---|---|---|---|\n"
NO_EFFECT = ("user", "metadata", "spaces_between_special_tokens")
FIRST = ("model", "messages", "prompt")
LAST = (
    "| anything else | all | ignored | ignored | named in the header `X-Ignored-Params` and in the log; "
    "with `--reject-unknown-parameters` 400 |"
)


def engine(model: str) -> Engine:
    """What the frontend would read of a model's own config."""
    text = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
    config = json_format.MessageToDict(text_format.Parse(text, ModelConfig()), preserving_proto_field_name=True)
    return read_engine(config)


def rows() -> Iterator[str]:
    """Honoured parameters first, in the order of the wire types; refused ones behind."""
    honours = {name: engine(model).honours for name, model in ENGINES.items()}
    described: dict[str, str] = {}
    for endpoint in ENDPOINTS.values():
        for name, field in endpoint.model_fields.items():
            described.setdefault(name, field.description or "")
    for name, description in sorted(described.items(), key=lambda item: item[0] not in FIRST):
        needed = "guide" if name in GUIDED else name
        fates = [
            "honoured" if needed not in ENGINE_DEPENDENT or needed in honours[column] else "refused"
            for column in ENGINES
        ]
        if name in NO_EFFECT:
            fates = ["no effect"] * len(ENGINES)
        where = [endpoint for endpoint, body in ENDPOINTS.items() if name in body.model_fields]
        places = "all" if len(where) == len(ENDPOINTS) else ", ".join(where)
        yield f"| `{name}` | {places} | {' | '.join(fates)} | {description} |"
    for endpoint_name, refusals in (("not above", REFUSED), ("responses", REFUSED_BY_RESPONSES)):
        for name, refused in refusals.items():
            accepted = "".join(f", `{as_json(value)}`" for value in refused.neutral)
            yield f"| `{name}` | {endpoint_name} | refused | refused | {refused.reason}; accepted: `null`{accepted} |"


def table() -> str:
    """The whole table."""
    return HEAD + "\n".join([*rows(), LAST])


if __name__ == "__main__":
    print(table())  # noqa: T201
