"""The operators of the backend, one row each."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from npreparam import ops
from npreparam.conformance.onnx_backend import losses, moving, spatial
from npreparam.conformance.onnx_backend.node import Array, Node, computed

Row = Callable[[Node], Any]


def plain(function: Callable[..., Any]) -> Row:
    """A function of the node's inputs alone."""
    return lambda node: computed(function, *node.inputs)


def broadcast(function: Callable[[Array, Array], Array]) -> Row:
    """A function of two inputs; before operator set 7 the second was placed at an axis of the first."""
    def row(node: Node) -> Array:
        x, y = node.inputs
        if node.version < 7 and node.get("broadcast", 0):
            y = y.reshape(y.shape + (1,) * (x.ndim - node.get("axis", x.ndim - y.ndim) - y.ndim))
        return computed(function, x, y)
    return row


def prelu(node: Node) -> Array:
    """x where positive, slope*x elsewhere; before operator set 7 the slopes were one for each channel."""
    x, slope = node.inputs
    if node.version < 7 and slope.size > 1:
        slope = slope.reshape((-1,) + (1,) * (x.ndim - 2))
    return computed(lambda x, slope: ops.where(x > 0, x, ops.mul(slope, x)), x, slope)


def reduction(function: Callable[..., Array]) -> Row:
    """A sum or mean over axes: all of them by default."""
    def row(node: Node) -> Array:
        x, axes = node.input(0), node.numbers(1, "axes")
        if not axes:
            axes = () if node.get("noop_with_empty_axes", 0) else None
        return computed(lambda x: function(x, axes, bool(node.get("keepdims", 1))), x)
    return row


def gemm(node: Node) -> Array:
    """alpha * A' @ B' + beta * C, transposed where the attributes say so."""
    def product(a: Array, b: Array, c: Array | None) -> Array:
        a, b = (ops.transpose(m) if node.get(name, 0) else m for m, name in ((a, "transA"), (b, "transB")))
        y = ops.mul(ops.matmul(a, b), node.get("alpha", 1.0))
        return y if c is None else ops.add(y, ops.mul(c, node.get("beta", 1.0)))
    return computed(product, node.input(0), node.input(1), node.input(2))


def matmul(node: Node) -> Array:
    """Products of matrices in stacks, with NumPy's rules for vectors."""
    def product(a: Array, b: Array) -> Array:
        rows, columns = (a.reshape(1, -1) if a.ndim == 1 else a), (b.reshape(-1, 1) if b.ndim == 1 else b)
        stack = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
        a3, b3 = (np.broadcast_to(m, (*stack, *m.shape[-2:])).reshape(math.prod(stack), *m.shape[-2:]) for m in (rows, columns))
        y = np.array([ops.matmul(m, k) for m, k in zip(a3, b3, strict=True)], a.dtype)
        return y.reshape(stack + (rows.shape[-2:-1] if a.ndim > 1 else ()) + (columns.shape[-1:] if b.ndim > 1 else ()))
    return computed(product, *node.inputs)


def several(function: Callable[[Array, Array], Array], divide: bool = False) -> Row:
    """One or more inputs combined from left to right, and divided by their number."""
    def row(node: Node) -> Array:
        return computed(lambda *arrays: ops.div(reduce(function, arrays), float(len(arrays))) if divide else reduce(function, arrays), *node.inputs)
    return row


OPERATORS: dict[str, Row] = {
    "Abs": plain(ops.abs),
    "Add": broadcast(ops.add),
    "AveragePool": spatial.average_pool,
    "BatchNormalization": losses.batch_normalization,
    "Col2Im": spatial.column_to_image,
    "Concat": moving.concat,
    "Constant": moving.constant,
    "Conv": spatial.conv,
    "ConvTranspose": spatial.conv_transpose,
    "Div": broadcast(ops.div),
    "Exp": plain(ops.exp),
    "Expand": moving.expand,
    "Flatten": moving.flatten,
    "Gemm": gemm,
    "GlobalAveragePool": spatial.global_average_pool,
    "GlobalMaxPool": spatial.global_max_pool,
    "Identity": moving.identity,
    "InstanceNormalization": losses.instance_normalization,
    "LeakyRelu": lambda node: computed(lambda x: ops.leaky_relu(x, node.get("alpha", 0.01)), node.input(0)),
    "Log": plain(ops.log),
    "LogSoftmax": losses.over_axis(ops.log_softmax),
    "MatMul": matmul,
    "MaxPool": spatial.max_pool,
    "Mean": several(ops.add, divide=True),
    "Mul": broadcast(ops.mul),
    "Neg": plain(ops.neg),
    "NegativeLogLikelihoodLoss": losses.negative_log_likelihood,
    "PRelu": prelu,
    "Pad": moving.pad,
    "Reciprocal": plain(lambda x: ops.div(1.0, x)),
    "ReduceMean": reduction(ops.mean),
    "ReduceSum": reduction(ops.sum),
    "ReduceSumSquare": reduction(lambda x, axes, keepdims: ops.sum(ops.square(x), axes, keepdims)),
    "Relu": plain(ops.relu),
    "Reshape": moving.reshape,
    "Sigmoid": plain(ops.sigmoid),
    "Slice": moving.cut,
    "Softmax": losses.over_axis(ops.softmax),
    "SoftmaxCrossEntropyLoss": losses.cross_entropy,
    "Softplus": plain(ops.softplus),
    "Softsign": plain(lambda x: ops.div(x, ops.add(ops.abs(x), 1.0))),
    "Split": moving.split,
    "Sqrt": plain(ops.sqrt),
    "Squeeze": moving.squeeze,
    "Sub": broadcast(ops.sub),
    "Sum": several(ops.add),
    "Swish": lambda node: computed(lambda x: ops.mul(x, ops.sigmoid(ops.mul(x, node.get("alpha", 1.0)))), node.input(0)),
    "Tanh": plain(ops.tanh),
    "Transpose": moving.transpose,
    "Unsqueeze": moving.unsqueeze,
}
