"""How far a fused block may be from its branches, and how far it is.

Let K, b be the exact fused parameters, K', b' the stored ones, and K~, b~ those of float64 arithmetic, within e = (2k + 4)*u*magnitude of the
exact ones after k roundings (`npreparam.fuse.rounded`). Stored to nearest they are within half an ulp more, so for |x| <= X

    |fused(x) - branches(x)| <= sum |K' - K| X + |b' - b| <= sum (ulp(K')/2 + e) X + ulp(b')/2 + e        for each output channel,

and every stored number must itself satisfy |K' - K~| <= ulp(K')/2 + 2e, which two ulps too many do not.

Source: Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npreparam import ops
from npreparam.checkpoints._evaluate import evaluate, flat
from npreparam.checkpoints._read import Array, Tensors, input_channels
from npreparam.checkpoints._recognise import Block
from npreparam.checkpoints._restrict import parts_of
from npreparam.checkpoints.expression import AvgPool, Conv, Expression, leaves
from npreparam.checkpoints.fold import kernel_of
from npreparam.fuse import AffineConv
from npreparam.fuse.rounded import UNIT
from npreparam.fuse.scalars import FLOAT64, Magnitudes

STORABLE = ("float16", "bfloat16", "float32", "float64")  # formats of fused numbers
MARGIN = 1 + 2.0**-20  # for the roundings of the bound itself, sums of up to 2**30 numbers
IMAGES, SPARE = 2, 4


@dataclass(frozen=True)
class Certificate:
    """`bound` for |x| <= X; `measured`, the largest difference on random inputs in float64, itself known to within `evaluation`.

    `largest` is X. `wrong` is the number of stored parameters that are not the block's, rounded; `measured` is None where `ops` have no such
    convolution.

    >>> Certificate(bound=1e-7, measured=2e-8, evaluation=1e-14, wrong=0).held, Certificate(1e-7, 2e-8, 1e-14, wrong=1).held
    (True, False)
    """

    bound: float
    measured: float | None
    evaluation: float
    wrong: int
    largest: float = 1.0

    @property
    def held(self) -> bool:
        """Whether every stored number and every measured difference is within its bound."""
        return self.wrong == 0 and (self.measured is None or self.measured <= self.bound + self.evaluation)


def certify(block: Block, tensors: Tensors, weight: Array, bias: Array, largest: float = 1.0, *, seed: int = 0,
            inputs: Array | None = None) -> Certificate:
    """The certificate of stored parameters (see above) for inputs of at most `largest` in magnitude.

    Measured on random images, or on `inputs` (N, C, H, W), whose largest magnitude then is that of the bound. Arrays of the wrong shape, of two
    dtypes, or of one that is no format of fused numbers, have all their numbers wrong, and no bound.

    >>> from npreparam.checkpoints import fold, recognise
    >>> tensors = {"0.weight": np.full((2, 3, 3, 1), 0.1, np.float32), "1.weight": np.full((4, 2, 1, 3), 0.1, np.float32)}
    >>> block, = recognise(tensors, "tdesr").blocks
    >>> folded = fold(block, tensors)
    >>> [certify(block, tensors, weight, folded.bias).wrong for weight in (folded.weight, np.nextafter(folded.weight, np.float32(1)))]
    [0, 108]
    """
    expression, channels, parts = block.expression, input_channels(block.expression, tensors), []
    largest = largest if inputs is None else float(np.abs(inputs).max())
    floor = 2.0 ** (-960 / (1 + sum(1 for _ in leaves(expression))))
    roundings = sum(_roundings(leaf, tensors) for leaf in leaves(expression))
    for part in parts_of(expression, tensors):
        conv, sizes = part.reader(FLOAT64), part.reader(Magnitudes(floor))
        (kernel, geometry), (size, _) = kernel_of(conv), kernel_of(sizes)
        shapes = (part.outputs or len(kernel), *kernel.shape[1:]), (part.outputs or conv.outputs,)
        if not are_arrays_of(weight, bias, shapes):
            return unfit(weight, bias, largest)
        parts.append(judged((conv, sizes), (weight[part.rows], kernel, size), bias[part.rows], largest, None, roundings))
    groups = {} if conv.transposed else {"groups": channels // weight.shape[1]}  # of the block, not of a part
    x = random_input(weight.shape[2:], channels, largest, seed) if inputs is None else inputs.astype(np.float64)
    measured = _measure(expression, tensors, (weight, bias), geometry | groups, x) if conv.rank <= 2 else None
    bound, evaluation = (max(getattr(each, name) for each in parts) for name in ("bound", "evaluation"))
    return Certificate(bound, measured, evaluation, sum(each.wrong for each in parts), largest)


def are_arrays_of(weight: Array, bias: Array, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
    """Whether they have these shapes and one dtype, which a fused number may have."""
    return (weight.shape, bias.shape) == shapes and weight.dtype == bias.dtype and weight.dtype.name in STORABLE


def unfit(weight: Array, bias: Array, largest: float) -> Certificate:
    """What is to be said of arrays that cannot be the block's."""
    return Certificate(float("inf"), None, 0.0, weight.size + bias.size, largest)


def judged(maps: tuple[AffineConv, AffineConv], kernels: tuple[Array, Array, Array], bias: Array, largest: float, measured: float | None,
           roundings: int) -> Certificate:
    """The certificate of a stored weight and bias; `roundings` lie behind a number that evaluating the block step by step has made.

    `maps` are the float64 map and its magnitudes, `kernels` the stored weight, that of float64 arithmetic and its magnitudes.
    """
    (conv, sizes), (weight, _, size) = maps, kernels
    relative = (2 * conv.roundings + 4) * UNIT
    ways = [kernels, (bias, conv.bias, sizes.bias)]
    allowed = [_half_ulp(number) + relative * each for number, _, each in ways]
    near = [np.abs(number.astype(np.float64) - value) <= (half + relative * each) * MARGIN
            for (number, value, each), half in zip(ways, allowed, strict=True)]
    bound = float((_per_output(allowed[0], conv.groups, conv.transposed) * largest + allowed[1]).max() * MARGIN)
    count = 2 * weight[0].size * (conv.inputs if conv.transposed else 1) + roundings
    reach = (_per_output(size + np.abs(weight.astype(np.float64)), conv.groups, conv.transposed) * largest
             + sizes.bias + np.abs(bias.astype(np.float64))).max()
    return Certificate(bound, measured, float(2 * count * UNIT * reach), sum(int((~each).sum()) for each in near), largest)


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
        window = int(np.prod(tensors[leaf.shape].shape)) if leaf.shape else 1
        return tensors[leaf.weight].size // min(tensors[leaf.weight].shape[:2]) * window + 2
    return int(np.prod(leaf.kernel)) + 2 if isinstance(leaf, AvgPool) else 8


def random_input(kernel: Sequence[int], channels: int, largest: float, seed: int = 0) -> Array:
    """Images a little larger than the kernel, so that every border is met."""
    plane = tuple(n + SPARE for n in kernel)
    return np.random.default_rng(seed).uniform(-largest, largest, (IMAGES, channels, *(1,) * (2 - len(plane)), *plane))


def _measure(expression: Expression, tensors: Tensors, stored: tuple[Array, Array], geometry: dict[str, Any], x: Array) -> float:
    """The largest difference between the fused convolution and the branches."""
    weight, bias = (array.astype(np.float64) for array in stored)
    missing = 4 - weight.ndim
    extra = {name: (*([(0, 0) if name == "padding" else 0 if name == "output_padding" else 1] * missing), *value)
             for name, value in geometry.items() if name != "groups"}
    operation = ops.conv_transpose2d if "output_padding" in geometry else ops.conv2d
    fused = operation(x, flat(weight), bias, **extra, groups=geometry["groups"])
    return float(np.abs(fused - evaluate(expression, tensors, x)).max())
