"""The engine's model once more, to compute the logits of tokens that are known already. In float32.

The pipeline's own copy of the weights cannot be used: OpenVINO packs them when it compiles, 1.4 times the file. Here
the weights are inputs of the graph instead of constants, and each inference gets them as they lie in the memory-mapped
file, whose pages are those that the pipeline was loaded from. So nothing is packed, and nothing is held twice. Each
inference unpacks all weights, layer by layer, into the same buffers: for the demo model 1.7 s of processor time, and
0.013 s for each token, so tokens are best taken many at a time.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

MODEL_XML = "openvino_model.xml"
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "KV_CACHE_PRECISION": "f32",
    "NUM_STREAMS": 1,
}
_SMALL_BYTES = 64 * 1024
"""Constants below this stay constants: norms, and numbers of the graph."""


class Forward:
    """The compiled graph. Sequences share it; one inference runs at a time."""

    def __init__(self, engine_dir: Path) -> None:
        model = ov.Core().read_model(engine_dir / MODEL_XML)
        self._weights = _weights_to_inputs(model)
        self._compiled = ov.Core().compile_model(model, "CPU", EXACT)
        self._request = self._new_request()

    def new_sequence(self) -> "TokenSequence":
        """A sequence without tokens."""
        return TokenSequence(self._new_request())

    def infer_once(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """The logits after each token of whole sequences, which are computed together and not kept."""
        length = max(map(len, sequences))
        token_ids = np.zeros((len(sequences), length), np.int64)
        for row, sequence in zip(token_ids, sequences, strict=True):
            row[: len(sequence)] = sequence  # what is behind it does not change what is before
        self._request.reset_state()
        logits = _infer(self._request, token_ids, 0)
        return [rows[: len(sequence)] for rows, sequence in zip(logits, sequences, strict=True)]

    def _new_request(self) -> ov.InferRequest:
        request = self._compiled.create_infer_request()
        for name, tensor in self._weights.items():
            request.set_tensor(name, tensor)
        return request


class TokenSequence:
    """The tokens of one prompt and answer, with their keys and values."""

    def __init__(self, request: ov.InferRequest) -> None:
        self._request = request
        self.num_tokens = 0

    def feed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Append the tokens. Returns the logits after each of them, [len(token_ids), vocabulary]."""
        begin, self.num_tokens = self.num_tokens, self.num_tokens + len(token_ids)
        logits: NDArray[np.float32] = _infer(self._request, np.array([token_ids], np.int64), begin)[0]
        return logits


def _infer(request: ov.InferRequest, token_ids: NDArray[np.int64], begin: int) -> NDArray[np.float32]:
    """[B, N] tokens, of which the first have the position `begin`, to logits [B, N, vocabulary]."""
    batch, end = len(token_ids), begin + token_ids.shape[1]
    inputs = {
        "input_ids": token_ids,
        "attention_mask": np.ones((batch, end), np.int64),
        "position_ids": np.tile(np.arange(begin, end, dtype=np.int64), (batch, 1)),
        "beam_idx": np.arange(batch, dtype=np.int32),
    }
    for name, array in inputs.items():
        request.set_tensor(name, ov.Tensor(array))
    request.infer()
    logits: NDArray[np.float32] = request.get_tensor("logits").data.copy()
    return logits


def _weights_to_inputs(model: ov.Model) -> dict[str, ov.Tensor]:
    """Make each large constant an input of the same name. Returns the inputs' tensors: views of the mapped file."""
    tensors = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_byte_size() < _SMALL_BYTES:
            continue
        name, shape, dtype = node.get_friendly_name(), node.get_output_shape(0), node.get_output_element_type(0)
        parameter = ops.parameter(list(shape), dtype, name)
        parameter.output(0).get_tensor().set_names({name})
        node.output(0).replace(parameter.output(0))
        model.add_parameters([parameter])
        tensors[name] = ov.Tensor(node.data, shape, dtype)
    return tensors
