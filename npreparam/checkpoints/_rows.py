"""Single outputs of a block in balls or exact numbers: to repair a few numbers, only the parameters behind them are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import numpy as np

from npreparam.checkpoints._read import Array, Reader, group_by_group, scale_of
from npreparam.checkpoints.expression import AvgPool, BatchNorm, Conv, Expression, Identity, Pad, Scale, Sequence, Shuffle, Sum
from npreparam.fuse import AffineConv, add, identity, regroup
from npreparam.fuse.affine import zeros
from npreparam.fuse.scalars import Scalars


class Row(NamedTuple):
    """A map of one output that reads only the channels `used` of so many."""

    map: AffineConv
    used: list[int]
    channels: int
    scalars: Scalars


class Rows:
    """The outputs of an expression one by one, each multiplied from the end, so that all products are by a single row."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.found: dict[tuple[int, Scalars], Row] = {}
        self.products: Counter[Scalars] = Counter()

    def entry(self, row: int, column: int, outputs: int) -> Callable[[Scalars], AffineConv]:
        """One of the `outputs` and one input channel of the whole map, whose borders are known to be exact; see `correctly_rounded`."""
        return lambda scalars: _widened(self._row(row, outputs, self.reader.budget.kind(scalars)), [column])

    def _row(self, row: int, outputs: int, scalars: Scalars) -> Row:
        if (row, scalars) not in self.found:
            self.reader.budget.check(scalars, self.products[scalars])
            self.reader.products = 0
            self.found[row, scalars] = self._before(Row(identity(1), [row], outputs, scalars), self.reader.expression)
            self.products[scalars] += self.reader.products
        return self.found[row, scalars]

    def _before(self, row: Row, node: Expression) -> Row:
        """A row after a node."""
        match node:
            case Sum():
                plain = row._replace(map=replace(row.map, bias=zeros(1, row.map.bias)))
                rows = [self._before(plain if i else row, term) for i, term in enumerate(node.terms)]
                used = sorted({channel for each in rows for channel in each.used})
                return Row(add(*(_widened(each, used) for each in rows)), used, max(each.channels for each in rows), row.scalars)
            case Sequence():
                return reduce(self._before, node.steps[::-1], row)
            case Shuffle():
                order = np.arange(row.channels).reshape(node.groups, -1).T.ravel()
                return row._replace(used=[int(order[channel]) for channel in row.used])
            case Conv(transposed=False):
                return self._after_conv(row, node)
            case BatchNorm():
                return row._replace(map=self._composed(row, node, {name: self.reader.tensors[name][row.used] for name in _names(node)}))
            case Scale():
                stored = {name: scale_of(self.reader.tensors[name], node.row) for name in _names(node)}
                stored = {name: values if values.size == 1 else values[row.used] for name, values in stored.items()}
                return row._replace(map=self._composed(row, replace(node, row=None), stored))
            case Identity() | Pad() | AvgPool():
                return row._replace(map=self._composed(row, node, {}))
        whole = regroup(self.reader.read(node, row.scalars, row.channels), 1)
        part = replace(whole, blocks=whole.blocks[:, row.used], bias=whole.bias[row.used])
        return _narrowed(row, self.reader.then(part, row.map, "interior"), whole.inputs)

    def _after_conv(self, row: Row, conv: Conv) -> Row:
        """Only the kernels of the channels that are used, as a dense convolution or a depthwise one."""
        tensors = self.reader.tensors
        weight, conv = group_by_group(tensors[conv.weight], conv), replace(conv, in_turn=False)
        groups, per_group = conv.groups or 1, weight.shape[1]
        stored = {name: tensors[name][row.used] for name in (conv.bias, conv.factor) if name}
        if conv.shape:
            window = tensors[conv.shape]
            stored[conv.shape] = window if window.ndim == weight.ndim - 2 else window[row.used]
        if groups == len(weight) and per_group == 1:  # each channel by itself
            return row._replace(map=self._composed(row, replace(conv, groups=len(row.used)), stored | {conv.weight: weight[row.used]}))
        dense = np.zeros((len(row.used), per_group * groups, *weight.shape[2:]))
        for i, channel in enumerate(row.used):
            first = channel // (len(weight) // groups) * per_group
            dense[i, first:first + per_group] = weight[channel]
        return _narrowed(row, self._composed(row, replace(conv, groups=1), stored | {conv.weight: dense}), per_group * groups)

    def _composed(self, row: Row, leaf: Expression, stored: dict[str, Array]) -> AffineConv:
        read = Reader(leaf, stored).read(leaf, row.scalars, len(row.used))
        return self.reader.then(read, row.map, "interior")


def _names(leaf: BatchNorm | Scale) -> list[str]:
    named = (leaf.mean, leaf.var, leaf.weight, leaf.bias) if isinstance(leaf, BatchNorm) else (leaf.weight, leaf.bias)
    return [name for name in named if name]


def _narrowed(row: Row, conv: AffineConv, channels: int) -> Row:
    """The row that is a dense map of so many channels, without those that it does not read."""
    used = np.flatnonzero((regroup(conv, 1).blocks != 0).any((0, 1))).tolist() or [0]
    return Row(replace(conv, blocks=conv.blocks[:, :, used], outside=conv.outside[used]), used, channels, row.scalars)


def _widened(row: Row, used: list[int]) -> AffineConv:
    """A row as a map of other channels, 0 for those that it does not read."""
    dense = regroup(row.map, 1)
    blocks = zeros((len(dense.taps), 1, len(used)), dense.blocks)
    for i, channel in enumerate(used):
        if channel in row.used:
            blocks[:, :, i] = dense.blocks[:, :, row.used.index(channel)]
    return replace(dense, blocks=blocks, outside=zeros(len(used), dense.blocks))
