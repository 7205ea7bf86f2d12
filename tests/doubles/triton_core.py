"""Stands for Triton's core: the config of a model, and its generate extension from JSON to tensors.

What it refuses, with which status and which words, is what a real Triton does: test_triton_double.py compares the two.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput

INTERNAL, INVALID = 500, 400
"""HTTP status of two of Triton's error codes."""
_BYTES = {DataType.TYPE_INT32: 4, DataType.TYPE_UINT64: 8, DataType.TYPE_FP32: 4, DataType.TYPE_BOOL: 1}


@dataclass(frozen=True)
class _Elements:
    """The JSON types of the elements of a tensor, their range if they are integers, and how other elements are refused.

    All elements at a time, as a bias has one for each token of the vocabulary.
    """

    types: frozenset[type]
    refusal: str
    integers: range | None = None

    def fit(self, values: list[Any]) -> bool:
        integers = self.integers
        return self.types.issuperset(map(type, values)) and (not integers or all(value in integers for value in values))


_ELEMENTS: Mapping[int, _Elements] = {
    DataType.TYPE_INT32: _Elements(
        frozenset({int}),
        "'data': attempt to access JSON non-signed-integer as signed-integer",
        range(-(2**63), 2**63),
    ),
    DataType.TYPE_UINT64: _Elements(
        frozenset({int}),
        "'data': attempt to access JSON non-unsigned-integer as unsigned-integer",
        range(2**64),
    ),
    DataType.TYPE_FP32: _Elements(frozenset({int, float}), "'data': attempt to access JSON non-number as double"),
    DataType.TYPE_BOOL: _Elements(frozenset({bool}), "'data': attempt to access JSON non-boolean as boolean"),
    DataType.TYPE_STRING: _Elements(frozenset({str}), "JSON bytes array: attempt to access JSON non-string as string"),
}


class LoadError(Exception):
    """The model cannot be loaded: Triton ends with status 1."""


@dataclass(frozen=True)
class RequestError(Exception):
    """A request is refused before the first response."""

    status: int
    message: str


@dataclass(frozen=True)
class Request:
    """The tensors of a request by name: a value for shape [1], else a flat list."""

    request_id: str
    tensors: Mapping[str, Any]


def read_config(repository: Path, model: str) -> ModelConfig:
    """The config.pbtxt of a model. Raises LoadError for what Triton does not load."""
    directory = repository / model
    if not repository.is_dir():
        raise LoadError(f"Internal - failed to stat file {repository}")
    try:
        config = text_format.Parse((directory / "config.pbtxt").read_text(), ModelConfig())
    except (OSError, text_format.ParseError):
        raise LoadError("Internal - failed to load all models") from None
    if config.name != model or any(
        size > config.max_batch_size for size in config.dynamic_batching.preferred_batch_size
    ):
        raise LoadError("Internal - failed to load all models")
    if not any(path.name.isdecimal() for path in directory.iterdir()):
        raise LoadError(
            f"Invalid argument - load failed for model '{model}': at least one version must be available under the"
            f" version policy of model '{model}'"
        )
    return config


def read_request(body: bytes, config: ModelConfig) -> Request:
    """Tensors of the inputs that the model declares. Raises RequestError.

    A key that is no input is a parameter of the request, which the backend ignores: only one that is not a scalar is
    refused.
    """
    declared = {tensor.name: tensor for tensor in config.input}
    members = _members(body)
    request_id = members.pop("id", "")
    if not isinstance(request_id, str):
        raise RequestError(INTERNAL, "Unable to parse 'id': attempt to access JSON non-string as string")
    parameters = members.pop("parameters", {})
    tensors = _tensors(declared, members)
    try:
        tensors |= _tensors(declared, parameters)
    except RequestError as error:
        raise RequestError(error.status, f"Converting keyword: 'parameters': {error.message}") from error
    _check_inputs(config, tensors)
    return Request(request_id, {name: values[0] if len(values) == 1 else values for name, values in tensors.items()})


def _members(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body)
    except ValueError as error:
        raise RequestError(INTERNAL, f"failed to parse the request JSON buffer: {error}") from error
    if not isinstance(members, dict):
        raise RequestError(INTERNAL, "attempt to get members for non-object")
    return members


def _tensors(declared: Mapping[str, ModelInput], members: Mapping[str, Any]) -> dict[str, list[Any]]:
    tensors = {}
    for name, value in members.items():
        if name in declared:
            tensors[name] = _tensor(declared[name], value)
        elif not isinstance(value, (str, int, float)):
            message = f"parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'."
            raise RequestError(INVALID, message)
    return tensors


def _tensor(declared: ModelInput, value: Any) -> list[Any]:
    """The values, checked for their type. Only flat lists fit the shape that Triton computes."""
    values = value if isinstance(value, list) else [value]
    if list in map(type, values):
        raise RequestError(INTERNAL, "Unable to parse 'data': Shape does not match true shape of 'data' field")
    if declared.data_type in _ELEMENTS:
        elements = _ELEMENTS[declared.data_type]
        if not elements.fit(values):
            raise RequestError(INTERNAL, f"Unable to parse {elements.refusal}")
    return values


def _check_inputs(config: ModelConfig, tensors: Mapping[str, list[Any]]) -> None:
    """Triton counts the required inputs, but leaves it to the backend which they are."""
    required = sorted(tensor.name for tensor in config.input if not tensor.optional)
    if len(tensors) < len(required):
        got = ",".join(f"'{name}'" for name in tensors)
        missing = ",".join(f"'{name}'" for name in required if name not in tensors)
        raise _invalid(
            f"expected number of inputs between {len(required)} and {len(config.input)} but got {len(tensors)} inputs"
            f" for model '{config.name}'. Got input(s) [{got}], but missing"
            f" required input(s) [{missing}]. Please provide all required input(s)."
        )
    for tensor in config.input:
        if tensor.name not in tensors or list(tensor.dims) == [-1]:
            continue
        count = len(tensors[tensor.name])
        if count == 0:
            raise _invalid(
                f"input byte size mismatch for input '{tensor.name}' for model '{config.name}'. Expected"
                f" {_BYTES.get(tensor.data_type, 0)}, got 0"
            )
        if count > 1:
            raise _invalid(f"input '{tensor.name}' batch size does not match other inputs for '{config.name}'")


def _invalid(message: str) -> RequestError:
    return RequestError(INVALID, f"[request id: <id_unknown>] {message}")
