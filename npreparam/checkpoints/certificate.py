"""How far a fused block may be from its branches, and how far it is.

Let K, b be the exact fused parameters, K', b' the stored ones, and K~, b~ those of float64 arithmetic, within e = (2k + 4)*u*magnitude of the
exact ones after k roundings (`npreparam.fuse.rounded`). Stored to nearest they are within half an ulp more, so for |x| <= X

    |fused(x) - branches(x)| <= sum |K' - K| X + |b' - b| <= sum (ulp(K')/2 + e) X + ulp(b')/2 + e        for each output channel,

and every stored number must itself satisfy |K' - K~| <= ulp(K')/2 + 2e, which two ulps too many do not.

Source: Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from npreparam import ops
from npreparam.checkpoints._recognise import Block
from npreparam.checkpoints.expression import AvgPool, BatchNorm, Conv, Expression, Pad, Scale, Sequence, Sum, leaves
from npreparam.checkpoints.fold import Reader, kernel_of
from npreparam.checkpoints.restrict import Array, Tensors, input_channels
from npreparam.fuse.rounded import UNIT
from npreparam.fuse.scalars import FLOAT64, Magnitudes

MARGIN = 1 + 2.0**-20  # for the roundings of the bound itself, sums of up to 2**30 numbers
IMAGES, SPARE = 2, 4


@dataclass(frozen=True)
class Certificate:
    """`bound` for |x| <= X; `measured`, the largest difference on random inputs in float64, itself known to within `evaluation`.

    `wrong` is the number of stored parameters that are not the block's, rounded; `measured` is None where `ops` have no such convolution.
    """

    bound: float
    measured: float | None
    evaluation: float
    wrong: int

    @property
    def held(self) -> bool:
        """Whether every stored number and every measured difference is within its bound."""
        return self.wrong == 0 and (self.measured is None or self.measured <= self.bound + self.evaluation)


def certify(block: Block, tensors: Tensors, weight: Array, bias: Array, largest: float = 1.0, seed: int = 0) -> Certificate:
    """The certificate of stored parameters (see above) for inputs of at most `largest` in magnitude.

    Arrays of the wrong shape have all their numbers wrong, and no bound.
    """
    reader = Reader(block.expression, tensors)
    conv, sizes = reader(FLOAT64), reader(Magnitudes(2.0 ** (-960 / (1 + sum(1 for _ in leaves(block.expression))))))
    (kernel, geometry), (size, _) = kernel_of(conv), kernel_of(sizes)
    if weight.shape != kernel.shape or bias.shape != conv.bias.shape:
        return Certificate(float("inf"), None, 0.0, weight.size + bias.size)
    relative = (2 * conv.roundings + 4) * UNIT
    ways = [(weight, kernel, size), (bias, conv.bias, sizes.bias)]
    allowed = [_half_ulp(stored) + relative * each for stored, _, each in ways]
    near = [np.abs(stored.astype(np.float64) - value) <= (half + relative * each) * MARGIN
            for (stored, value, each), half in zip(ways, allowed, strict=True)]
    bound = float((_per_output(allowed[0], conv.groups, conv.transposed) * largest + allowed[1]).max() * MARGIN)
    count = 2 * weight[0].size * (conv.inputs if conv.transposed else 1) + sum(_roundings(leaf, tensors) for leaf in leaves(block.expression))
    reach = (_per_output(size + np.abs(weight.astype(np.float64)), conv.groups, conv.transposed) * largest
             + sizes.bias + np.abs(bias.astype(np.float64))).max()
    measured = _measure(block.expression, tensors, (weight, bias), geometry, (largest, seed)) if conv.rank <= 2 else None
    return Certificate(bound, measured, float(2 * count * UNIT * reach), sum(int((~each).sum()) for each in near))


def _half_ulp(stored: Array) -> Array:
    return np.abs(np.spacing(np.abs(stored)).astype(np.float64)) / 2


def _per_output(w: Array, groups: int, transposed: bool) -> Array:
    """Sums over all that one output channel reads; of a strided transposed kernel, an output reads no more than this."""
    if transposed:
        return w.reshape(groups, w.shape[0] // groups, w.shape[1], -1).sum((1, 3)).reshape(-1)
    return w.reshape(len(w), -1).sum(1)


def _roundings(leaf: Expression, tensors: Tensors) -> int:
    """At most so many lie behind a number that one step of the evaluation has made."""
    if isinstance(leaf, Conv):
        return tensors[leaf.weight].size // min(tensors[leaf.weight].shape[:2]) + 2
    return int(np.prod(leaf.kernel)) + 2 if isinstance(leaf, AvgPool) else 8


def _measure(expression: Expression, tensors: Tensors, stored: tuple[Array, Array], geometry: dict[str, Any], draw: tuple[float, int]) -> float:
    """The largest difference on images a little larger than the kernel, so that every border is met."""
    largest, seed = draw
    weight, bias = (array.astype(np.float64) for array in stored)
    plane = tuple(n + SPARE for n in weight.shape[2:])
    sides = (*(1,) * (2 - len(plane)), *plane)
    x = np.random.default_rng(seed).uniform(-largest, largest, (IMAGES, input_channels(expression, tensors), *sides))
    extra = {name: (*([(0, 0) if name == "padding" else 0 if name == "output_padding" else 1] * (2 - len(plane))), *value)
             for name, value in geometry.items() if name != "groups"}
    operation = ops.conv_transpose2d if "output_padding" in geometry else ops.conv2d
    fused = operation(x, _flat(weight), bias, **extra, groups=geometry["groups"])
    return float(np.abs(fused - evaluate(expression, tensors, x)).max())


def _flat(weight: Array) -> Array:
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
        case Sequence():
            for step in expression.steps:
                x = evaluate(step, tensors, x)
        case Conv():
            return _conv(expression, tensors, x)
        case BatchNorm():
            spread = np.sqrt(tensor(expression.var, 1) + expression.eps)
            return (x - tensor(expression.mean, 0)) / spread * tensor(expression.weight, 1) + tensor(expression.bias, 0)
        case Scale():
            return expression.number * tensor(expression.weight, 1) * x + tensor(expression.bias, 0)
        case Pad():
            amount = (0,) * (2 - len(expression.amount)) + expression.amount
            x = np.pad(x, ((0, 0), (0, 0), *((max(n, 0),) * 2 for n in amount)))
            return x[(..., *(slice(max(-n, 0), size - max(-n, 0)) for n, size in zip(amount, x.shape[2:], strict=True)))]
        case AvgPool():
            return ops.avg_pool2d(x, (1,) * (2 - len(expression.kernel)) + expression.kernel, expression.stride or 1)
    return x


def _conv(conv: Conv, tensors: Tensors, x: Array) -> Array:
    weight = np.asarray(tensors[conv.weight], np.float64)
    if conv.factor:
        factor = np.asarray(tensors[conv.factor], np.float64)
        weight = weight * factor.reshape(*factor.shape, *(1,) * (weight.ndim - factor.ndim))
    bias = np.asarray(tensors[conv.bias], np.float64) if conv.bias else None
    missing = 4 - weight.ndim
    sizes = conv.padding or (0,) * (2 - missing)
    padding = tuple((n, n) for n in ((0,) * missing + sizes))
    stride = max(2, conv.stride or 2) if conv.transposed else conv.stride or 1
    dilation, groups = conv.dilation or 1, conv.groups or 1
    strides = ((1,) * missing + (stride,) * (2 - missing))
    if conv.transposed:
        return ops.conv_transpose2d(x, _flat(weight), bias, strides, padding, 0, dilation, groups)
    return ops.conv2d(x, _flat(weight), bias, strides, padding, dilation, groups)
