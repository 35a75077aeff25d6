"""A block evaluated branch by branch, in float64: what the fused convolution is measured against."""

from __future__ import annotations

import numpy as np

from npreparam import ops
from npreparam.checkpoints._read import Array, Tensors, group_by_group, kernel_of_window, scale_of
from npreparam.checkpoints.expression import (
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Expression,
    OnGrid,
    Pad,
    Scale,
    Sequence,
    Shuffle,
    Slice,
    Sum,
)


def flat(weight: Array) -> Array:
    """A kernel over fewer than two axes as one over two."""
    return weight.reshape(*weight.shape[:2], *(1,) * (4 - weight.ndim), *weight.shape[2:])


def evaluate(expression: Expression, tensors: Tensors, x: Array) -> Array:
    """An expression applied to x (N, C, H, W) in float64, branch by branch.

    >>> evaluate(Sum((Scale("s"), Pad((0, 0)))), {"s": np.array([2.0])}, np.ones((1, 1, 1, 1)))
    array([[[[3.]]]])
    """
    def tensor(name: str | None, default: float) -> Array:
        return np.asarray(tensors[name] if name else [default], np.float64).reshape(-1, 1, 1)

    match expression:
        case Sum():
            return sum(evaluate(term, tensors, x) for term in expression.terms)  # type: ignore[return-value]
        case Concat():
            return np.concatenate([evaluate(term, tensors, x) for term in expression.terms], 1)
        case OnGrid():
            return _on_grid(expression, tensors, x)
        case Sequence():
            for step in expression.steps:
                x = evaluate(step, tensors, x)
        case Conv():
            return _conv(expression, tensors, x)
        case BatchNorm():
            spread = np.sqrt(tensor(expression.var, 1) + expression.eps)
            return (x - tensor(expression.mean, 0)) / spread * tensor(expression.weight, 1) + tensor(expression.bias, 0)
        case Scale():
            scale = scale_of(tensors[expression.weight], expression.row) if expression.weight else np.ones(1)
            return expression.number * scale.astype(np.float64).reshape(-1, 1, 1) * x + tensor(expression.bias, 0)
        case Shuffle():
            images, channels, *size = x.shape
            return x.reshape(images, expression.groups, channels // expression.groups, *size).swapaxes(1, 2).reshape(x.shape)
        case Slice():
            return x[:, expression.first : expression.first + expression.count]
        case Pad():
            amount = (0,) * (2 - len(expression.amount)) + expression.amount
            x = np.pad(x, ((0, 0), (0, 0), *((max(n, 0),) * 2 for n in amount)))
            return x[(..., *(slice(max(-n, 0), size - max(-n, 0)) for n, size in zip(amount, x.shape[2:], strict=True)))]
        case AvgPool():
            return ops.avg_pool2d(x, (1,) * (2 - len(expression.kernel)) + expression.kernel, expression.stride or 1)
    return x


def _conv(conv: Conv, tensors: Tensors, x: Array) -> Array:
    weight = group_by_group(np.asarray(tensors[conv.weight], np.float64), conv)
    if conv.factor:
        factor = np.asarray(tensors[conv.factor], np.float64)
        weight = weight * factor.reshape(*factor.shape, *(1,) * (weight.ndim - factor.ndim))
    if conv.shape:
        weight = kernel_of_window(weight, np.asarray(tensors[conv.shape], np.float64))
    bias = np.asarray(tensors[conv.bias], np.float64) if conv.bias else None
    missing = 4 - weight.ndim
    sizes = conv.padding or (0,) * (2 - missing)
    padding = tuple((n, n) for n in ((0,) * missing + sizes))
    stride = max(2, conv.stride or 2) if conv.transposed else conv.stride or 1
    dilation, groups = conv.dilation or 1, conv.groups or 1
    strides = ((1,) * missing + (stride,) * (2 - missing))
    if conv.transposed:
        return ops.conv_transpose2d(x, flat(weight), bias, strides, padding, 0, dilation, groups)
    return ops.conv2d(x, flat(weight), bias, strides, padding, dilation, groups)


def _on_grid(grid: OnGrid, tensors: Tensors, x: Array) -> Array:
    """Each place of x as an image of its own, evaluated and flattened again."""
    images, _, *size = x.shape
    patches = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1] // int(np.prod(grid.size)), *grid.size)
    y = evaluate(grid.term, tensors, patches)
    return np.moveaxis(y.reshape(images, *size, -1), -1, 1)
