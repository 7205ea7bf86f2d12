"""Where the weights of a graph go: parameters that weights.py turns into constants afterwards.

So a graph of 24 GB costs no more memory than one of 24 MB. A placeholder is named for its tensors in the checkpoint,
joined by `+` where several are stacked into one constant, output channels behind each other.
"""

import openvino.opset13 as ops
from openvino import Node, PartialShape, Type
from openvino.op import Parameter

from build_engine.mixtral import MixtralConfig, linear_sizes

from .nodes import i64

STACKED = "+"
"""Between the names of tensors that are one constant."""

_QUANTIZED_PARTS = ("qweight", "qzeros", "scales")


class Placeholders:
    """Makes the nodes of weights. `parameters` are those that it has made, in order."""

    def __init__(self, config: MixtralConfig) -> None:
        self._config = config
        self.parameters: list[Parameter] = []

    def plain(self, name: str, shape: list[int]) -> Node:
        """A weight that is not quantised, as float32."""
        return ops.convert(self._new(name, shape, Type.f16), "f32")

    def vocabulary(self, name: str) -> Node:
        """Embedding and head, [vocab, hidden]; one constant when they are tied."""
        for parameter in self.parameters:
            if parameter.get_friendly_name() == name:
                return ops.convert(parameter, "f32")
        return self.plain(name, [self._config.vocab_size, self._config.hidden_size])

    def linear(self, *names: str) -> Node:
        """The dequantised weights of linears with the same inputs, [outputs of all, inputs]: (q - z) * s, as in AWQ."""
        sizes = [linear_sizes(self._config)[name.rpartition(".")[2]] for name in names]
        inputs, outputs = sizes[0][0], sum(outputs for _, outputs in sizes)
        groups = inputs // self._config.group_size
        quants, zeros, scales = (STACKED.join(f"{name}.{part}" for name in names) for part in _QUANTIZED_PARTS)
        q = ops.convert(self._new(quants, [outputs, groups, self._config.group_size], Type.u4), "f16")
        z = ops.convert(self._new(zeros, [outputs, groups, 1], Type.u4), "f16")
        s = self._new(scales, [outputs, groups, 1], Type.f16)
        weight = ops.multiply(ops.subtract(q, z), s)
        return ops.convert(ops.reshape(weight, i64([outputs, inputs]), False), "f32")

    def _new(self, name: str, shape: list[int], dtype: Type) -> Parameter:
        parameter = Parameter(dtype, PartialShape(shape))
        parameter.set_friendly_name(name)
        self.parameters.append(parameter)
        return parameter
