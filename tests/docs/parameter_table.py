"""The table of request parameters in docs/parameters.md: `python -m tests.docs.parameter_table` writes it.

Made from the wire types, the parameters that they refuse, and the inputs that both engines' config.pbtxt declare.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from google.protobuf import json_format, text_format
from pydantic.fields import FieldInfo
from tritonclient.grpc.model_config_pb2 import ModelConfig

from frontend.anthropic.types import MessagesRequest
from frontend.generation import Engine
from frontend.openai.body import Body, Unsupported
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.completions.types import CompletionRequest
from frontend.openai.responses.types import ResponsesRequest
from frontend.openai.sampling import ENGINE_DEPENDENT
from frontend.triton.tensors import read_engine

from .pages import ROOT

PAGE = ROOT / "docs" / "parameters.md"
BEGIN = "<!-- made by `make table` from here -->\n"
END = "<!-- to here -->\n"

ENDPOINTS: Mapping[str, type[Body]] = {
    "chat": ChatCompletionRequest,
    "completions": CompletionRequest,
    "responses": ResponsesRequest,
    "messages": MessagesRequest,
}
ENGINES = {"GPU": "tensorrt_llm", "CPU": "openvino"}
"""Column of the table to the model in model_repository."""
GUIDED = (
    "response_format", "output_config", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "structured_outputs", "tools",
)  # fmt: skip
"""Parameters that become a grammar, and so need the engine's input for one."""
HEAD = "| Parameter | Where | GPU | CPU | |\n|---|---|---|---|---|\n"
NO_EFFECT = (
    "user", "metadata", "spaces_between_special_tokens", "reasoning", "reasoning_effort", "thinking", "cache_control",
)  # fmt: skip
FIRST = ("model", "messages", "prompt")
LAST = (
    "| anything else | all | ignored | ignored | named in the header `X-Ignored-Params` and in the log; "
    "with `--reject-unknown-parameters` 400 |"
)


def table() -> str:
    """The whole table: accepted parameters in the order of the wire types, refused ones behind them."""
    return HEAD + "\n".join([*_accepted_rows(), *_refused_rows(), LAST]) + "\n"


def page_with(page: str, table: str) -> str:
    """The page with this table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table}{END}{after}"


def fields_of(body: type[Body]) -> Mapping[str, FieldInfo]:
    """The fields of a body by the names that a client sends."""
    return {field.alias or name: field for name, field in body.model_fields.items()}


def _accepted_rows() -> Iterator[str]:
    honours = [engine(model).honours for model in ENGINES.values()]
    described: dict[str, str] = {}
    for body in ENDPOINTS.values():
        for name, field in fields_of(body).items():
            described.setdefault(name, field.description or "")
    for name, description in sorted(described.items(), key=lambda item: item[0] not in FIRST):
        endpoints = [endpoint for endpoint, body in ENDPOINTS.items() if name in fields_of(body)]
        yield _row(name, endpoints, [_fate(name, honoured) for honoured in honours], description)


def _fate(name: str, honoured: Set[str]) -> str:
    """What an engine that honours these sampling parameters makes of a field that a body declares."""
    if name in NO_EFFECT:
        return "no effect"
    needed = "guide" if name in GUIDED else name
    return "honoured" if needed in honoured or needed not in (*ENGINE_DEPENDENT, "guide") else "refused"


def _refused_rows() -> Iterator[str]:
    where: dict[tuple[str, str], list[str]] = {}
    for endpoint, body in ENDPOINTS.items():
        for name, unsupported in body.unsupported.items():
            if name not in fields_of(body):
                where.setdefault((name, _refusal(unsupported)), []).append(endpoint)
    for (name, refusal), endpoints in where.items():
        yield _row(name, endpoints, ["refused"] * len(ENGINES), refusal)


def _refusal(unsupported: Unsupported) -> str:
    accepted = ", ".join(f"`{json.dumps(value)}`" for value in (None, *unsupported.accepted))
    return f"{unsupported.reason}; accepted: {accepted}"


def _row(name: str, endpoints: Sequence[str], fates: Sequence[str], description: str) -> str:
    places = "all" if len(endpoints) == len(ENDPOINTS) else ", ".join(endpoints)
    return f"| `{name}` | {places} | {' | '.join(fates)} | {description} |"


def engine(model: str) -> Engine:
    """What the frontend would read of a model's own config."""
    return read_engine(config_of(model))


def config_of(model: str) -> Mapping[str, Any]:
    """A model's config.pbtxt as Triton reports it."""
    text = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
    return json_format.MessageToDict(text_format.Parse(text, ModelConfig()), preserving_proto_field_name=True)


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text(), table()))
