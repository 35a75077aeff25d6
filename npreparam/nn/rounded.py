"""Fused parameters of module trees, correctly rounded."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import fuse
from npreparam.fuse import AffineConv
from npreparam.fuse.affine import select
from npreparam.fuse.rounded import correctly_rounded
from npreparam.fuse.scalars import FLOAT64, Scalars
from npreparam.nn.channels import Scale
from npreparam.nn.containers import Sequential, Sum, compose_parts
from npreparam.nn.layers import BatchNorm2d, Conv2d
from npreparam.nn.module import Module
from npreparam.tape import Tensor


def rounded_map(modules: Sequence[Module], dtype: DTypeLike, border: str = "exact") -> AffineConv:
    """The map of modules one after the other, each number the value of `dtype` nearest to the exact one, held in float64."""
    def reader(some: Sequence[Module]) -> Any:
        return lambda scalars: compose_parts([part for module in some for part in module.parts()], scalars, border)

    factors = sum(count_layers(module) for module in modules)
    return correctly_rounded(reader(modules), dtype, factors, lambda rows, outputs: reader(rows_of(modules, rows, outputs)))


def fused_conv2d(module: Module, dtype: DTypeLike = np.float32, *, kernel: tuple[int, int] | None = None, border: str = "exact") -> tuple[Any, ...]:
    """(w, b, stride, padding, dilation, groups) of the convolution that a linear module is, w and b correctly rounded to `dtype`.

    w is OIHW, b (O,); `dtype` float16, float32 or float64; `kernel` asks for a size, else it is the smallest.

    Rounding: each number once, to nearest, ties to even, whatever the tree.

    Raises FusionError, DTypeError.

    >>> from npreparam.nn import Identity
    >>> conv = Conv2d.holding(np.full((1, 1, 1, 1), 1 / 3), None)
    >>> fused_conv2d(Sum(conv, Identity()), np.float16)[0]
    array([[[[1.333]]]], dtype=float16)
    """
    w, b, *geometry = fuse.to_conv2d(rounded_map([module], dtype, border).lifted(2), kernel)
    with np.errstate(over="ignore"):
        return w.astype(dtype), b.astype(dtype), *geometry


def count_layers(module: Module) -> int:
    """Number of modules in a tree."""
    return 1 + sum(count_layers(child) for _, child in module.children())


class _Select(Module):
    """Some channels of the output of the modules before, as a map alone."""

    def __init__(self, channels: int, rows: Sequence[int]) -> None:
        self.channels, self.rows = channels, rows

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        return select(self.channels, self.rows)


def rows_of(modules: Sequence[Module], rows: Sequence[int], outputs: int) -> list[Module]:
    """Modules one after the other that give the outputs `rows` of the `outputs` of `modules`, with as few parameters as easily seen.

    From the end: a scale for each channel keeps those of the rows; a convolution keeps its rows, and all before it stays; a sum does so in every
    branch. Anything else stays, and the rows are chosen behind it.
    """
    parts = [part for module in modules for _, part in module.parts()]
    found: list[Module] = []
    while parts:
        part = parts.pop()
        if type(part) in (BatchNorm2d, Scale):
            found.append(_sliced(part, rows))
        elif type(part) is Conv2d:
            return [*parts, _rows_of_conv(part, rows), *found[::-1]]
        elif type(part) is Sum:
            branches = {name: Sequential(*rows_of([branch], rows, outputs)) for name, branch in part.children()}
            return [*parts, Sum(**branches), *found[::-1]]
        else:
            return [*parts, part, _Select(outputs, rows), *found[::-1]]
    return [_Select(outputs, rows), *found[::-1]]


def _sliced(module: Module, rows: Sequence[int]) -> Module:
    """A layer of one scale for each channel with some of its channels."""
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            setattr(twin, name, Tensor(value.value[rows], value.name))
        elif isinstance(value, np.ndarray):
            setattr(twin, name, value[rows])
    return twin


def _rows_of_conv(conv: Conv2d, rows: Sequence[int]) -> Conv2d:
    """A convolution with some of its outputs, dense."""
    w, (*geometry, groups) = conv.weight.value, conv.geometry
    outputs, inputs = w.shape[:2]
    dense = np.zeros((len(rows), inputs * groups, *w.shape[2:]), w.dtype)
    for i, row in enumerate(rows):
        first = row // (outputs // groups) * inputs
        dense[i, first:first + inputs] = w[row]
    return Conv2d.holding(dense, None if conv.bias is None else conv.bias.value[rows], *geometry)
