"""Fused parameters of module trees, correctly rounded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import fuse
from npreparam.fuse import AffineConv
from npreparam.fuse.rounded import Read, correctly_rounded
from npreparam.fuse.scalars import BALLS, EXACT, FLOAT64, Scalars
from npreparam.nn.channels import Pad, Scale
from npreparam.nn.containers import Sequential, Sum, compose_parts
from npreparam.nn.layers import BatchNorm2d, Conv2d
from npreparam.nn.module import Module
from npreparam.tape import Tensor


def rounded_map(modules: Sequence[Module], dtype: DTypeLike, border: str = "exact") -> AffineConv:
    """The map of modules one after the other, each number the value of `dtype` nearest to the exact one, held in float64."""
    reading = _Reading(modules, border)
    return correctly_rounded(reading.of(modules), dtype, sum(1 for module in modules for _ in layers_of(module)), reading.entry)


class _Reading:
    """Modules one after the other, read over any kind of scalars, whole or one entry at a time.

    Where no number is irrational, fractions take less time than balls, and little more than their conversion: as soon as the entries have had as
    many parameters as the whole, that is read instead, once.
    """

    def __init__(self, modules: Sequence[Module], border: str) -> None:
        self.modules, self.border, self.spent = modules, border, 0
        self.rational = not any(isinstance(layer, BatchNorm2d) for module in modules for layer in layers_of(module))
        self.exact: AffineConv | None = None

    def of(self, some: Sequence[Module]) -> Read:
        """Some modules as a map."""
        parts = [part for module in some for part in module.parts()]
        return lambda scalars: compose_parts(parts, EXACT if self.rational and scalars is BALLS else scalars, self.border)

    def entry(self, row: int, column: int, whole: AffineConv) -> Read:
        """One output and one input channel of the whole map."""
        if self.exact is None:
            some = entry_of(self.modules, row, column, whole.outputs, whole.inputs)
            self.spent += _numbers_in(some)
            if not self.rational or self.spent <= _numbers_in(self.modules):
                return self.of(some)
            self.exact = self.of(self.modules)(EXACT)
        exact = self.exact
        at = column - row // (exact.outputs // exact.groups) * exact.blocks.shape[2]
        part = replace(exact, blocks=exact.blocks[:, row:row + 1, at:at + 1], bias=exact.bias[row:row + 1], outside=exact.outside[column:column + 1],
                       groups=1)
        return lambda scalars: part


def _numbers_in(modules: Sequence[Module]) -> int:
    return sum(parameter.value.size for module in modules for parameter in module.parameters().values())


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


def layers_of(module: Module) -> Iterator[Module]:
    """All modules in a tree."""
    yield module
    for _, child in module.children():
        yield from layers_of(child)


class _Matrix(Module):
    """Some rows or columns of the identity, as a map alone: a choice of outputs of what is before, or of inputs of what is behind."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        return fuse.linear(self.matrix)


def entry_of(modules: Sequence[Module], row: int, column: int, outputs: int, inputs: int) -> list[Module]:
    """Modules that are output `row` of `modules`, where input `column` alone is not 0: one entry of each block of their map, and one bias."""
    return _column_of(_row_of(modules, row, outputs), column, inputs)


def _row_of(modules: Sequence[Module], row: int, outputs: int) -> list[Module]:
    """One output, with few parameters.

    From the end: a scale for each channel keeps that of the row; a convolution keeps its row, and all before it stays; a sum does so in every
    branch. Anything else stays, and the row is chosen behind it.
    """
    parts = [part for module in modules for _, part in module.parts()]
    found: list[Module] = []
    chosen = _Matrix(np.eye(1, outputs, row))
    while parts:
        part = parts.pop()
        if type(part) in (BatchNorm2d, Scale):
            found.append(_one_channel(part, row))
        elif type(part) is Conv2d:
            return [*parts, _part_of_conv(part, slice(row, row + 1), slice(None)), *found[::-1]]
        elif type(part) is Sum:
            branches = {name: Sequential(*_row_of([branch], row, outputs)) for name, branch in part.children()}
            return [*parts, Sum(**branches), *found[::-1]]
        else:
            return [*parts, part, chosen, *found[::-1]]
    return [chosen, *found[::-1]]


def _column_of(modules: Sequence[Module], column: int, inputs: int) -> list[Module]:
    """One input, with few parameters: from the front as `_row_of` from the end, except that shifts of other channels must stay."""
    parts = [part for module in modules for _, part in module.parts()]
    found: list[Module] = []
    chosen = _Matrix(np.eye(inputs)[:, column:column + 1])
    while parts:
        part = parts.pop(0)
        if type(part) is Pad:
            found.append(Pad(1, part.sides))
        elif type(part) is Conv2d:
            return [*found, _part_of_conv(part, slice(None), slice(column, column + 1)), *parts]
        elif type(part) is Sum:
            branches = {name: Sequential(*_column_of([branch], column, inputs)) for name, branch in part.children()}
            return [*found, Sum(**branches), *parts]
        else:
            return [*found, chosen, part, *parts]
    return [*found, chosen]


def _one_channel(module: Module, channel: int) -> Module:
    """A layer of one scale for each channel with one of its channels."""
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            setattr(twin, name, Tensor(value.value[channel:channel + 1], value.name))
        elif isinstance(value, np.ndarray):
            setattr(twin, name, value[channel:channel + 1])
    return twin


def _part_of_conv(conv: Conv2d, rows: slice, columns: slice) -> Conv2d:
    """A convolution with some of its outputs and inputs, dense."""
    w, (*geometry, groups) = conv.weight.value, conv.geometry
    outputs, inputs = w.shape[:2]
    chosen, wanted = range(outputs)[rows], range(inputs * groups)[columns]
    dense = np.zeros((len(chosen), len(wanted), *w.shape[2:]), w.dtype)
    for i, row in enumerate(chosen):
        first = row // (outputs // groups) * inputs
        places = [j for j, column in enumerate(wanted) if first <= column < first + inputs]
        dense[i, places] = w[row, [wanted[j] - first for j in places]]
    return Conv2d.holding(dense, None if conv.bias is None else conv.bias.value[rows], *geometry)
