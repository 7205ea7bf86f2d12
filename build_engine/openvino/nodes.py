"""Small pieces of a graph that its modules share."""

import numpy as np
import openvino.opset13 as ops
from openvino import Node, Output


def i64(value: int | list[int]) -> Output:
    """A constant of 64-bit integers."""
    return ops.constant(np.array(value, np.int64)).output(0)


def f32(value: float) -> Output:
    """A constant number."""
    return ops.constant(np.array(value, np.float32)).output(0)


def dimension(x: Node | Output, axis: int) -> Node:
    """One dimension of x as i64 [1]."""
    return ops.gather(ops.shape_of(x, "i64"), i64([axis]), i64(0))
