"""Linear layers as linear steps: they act on rows of numbers, which are images without axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npreparam._errors import FusionError
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints.graph._elementwise import same
from npreparam.checkpoints.graph._node import Context, Node, Step
from npreparam.fuse import AffineConv, linear

SINCE = 7  # the operator set since which the constant that Gemm adds is broadcast unasked


def gemm(node: Node) -> Step:
    """Gemm with a constant matrix: alpha * x @ B + beta * C for each row x."""
    data, matrix, shift = node.one_input(), node.parameter(1), node.parameter(2)
    if node.values.get("transA", 0) or node.graph.version < SINCE:
        raise FusionError("its first matrix is transposed, or it is of an old operator set", "keep it as it is")
    if matrix is None or matrix.ndim != 2 or not matrix.size:
        raise node.malformed("its second matrix must have two axes, neither of them empty")
    dtype = node.graph.constants[node.inputs[1]].dtype
    if dtype.kind in "iub":
        raise FusionError(f"its matrix is of {dtype}", "only floats are fused")
    weight = matrix if node.values.get("transB", 0) else matrix.T
    bias, (alpha, beta) = _row(node, shift, len(weight)), (float(node.values.get(name, 1.0)) for name in ("alpha", "beta"))
    if not np.isfinite((alpha, beta)).all():
        raise node.malformed(f"alpha (={alpha}) and beta (={beta}) must be finite")

    def read(context: Context) -> list[list[AffineConv]]:
        if context.rank:
            raise FusionError("it takes rows, others images", "keep it as it is")
        rows, numbers = slice(None) if context.rows is None else context.rows, context.scalars.numbers
        found = [values if factor == 1 else values * numbers(np.array([factor]))
                 for values, factor in ((numbers(weight[rows]), alpha), (numbers(bias[rows]), beta))]
        return [[replace(linear(*found), roundings=int((alpha, beta) != (1, 1)))]]

    return Step(node.index, node.op, data, tuple(node.proto.output), read, lambda x: [alpha * (x @ weight.T) + beta * bias], weight.shape[1], 0,
                weight.shape, weight.size + (0 if shift is None else shift.size), dtype, max(weight.shape) + 4, factors=2)


def _row(node: Node, shift: Array | None, outputs: int) -> Array:
    """C as one number for each output. Raises FusionError where it depends on the row."""
    if shift is None:
        return np.zeros(outputs)
    if shift.ndim > 2 or (shift.ndim == 2 and shift.shape[0] != 1):
        raise FusionError(f"what it adds, of shape {shift.shape}, differs from row to row", "keep it as it is")
    if shift.size not in (1, outputs):
        raise node.malformed(f"what it adds, of shape {shift.shape}, does not fit {outputs} outputs")
    return np.broadcast_to(shift.reshape(-1), outputs)


def flatten(node: Node) -> Step:
    """Flatten of rows, which it leaves as they are."""
    if len(node.graph.shapes.get(node.inputs[0], ())) != 2 or node.values.get("axis", 1) not in (1, -1):
        raise FusionError("it makes rows of images, whose places then are channels", "keep it as it is")
    return same(node)
