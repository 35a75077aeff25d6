"""Some outputs and some inputs of an expression, as an expression over parts of its tensors: large blocks are read part by part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from npreparam.checkpoints._read import Array, Reader, Tensors, input_channels
from npreparam.checkpoints.expression import (
    AvgPool,
    BatchNorm,
    Conv,
    Expression,
    Identity,
    Pad,
    Scale,
    Sequence,
    Sum,
    leaves,
    nodes,
    tensor_names,
)
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import Scalars

PART = 2**17  # numbers that are read at a time


class Part(NamedTuple):
    """Some outputs of a block: `rows` of its kernel, where the first input is `column`; `outputs` are those of the block, 0 where it is whole."""

    reader: Reader
    rows: slice = slice(None)
    column: int = 0
    outputs: int = 0


def parts_of(expression: Expression, tensors: Tensors) -> Iterator[Part]:
    """A block as parts of a size that stays in the cache: some groups of channels, or a part of one, at a time."""
    per_output = sum(tensors[leaf.weight][0].size for leaf in leaves(expression) if isinstance(leaf, Conv))
    outputs, inputs = output_channels(expression, tensors), input_channels(expression, tensors)
    if not can_restrict(expression) or outputs * per_output <= PART:
        yield Part(Reader(expression, tensors))
        return
    groups, many = common_groups(expression), max(1, PART // per_output)
    size, named = outputs // groups, {name: tensors[name] for name in tensor_names(expression)}
    if many < size:
        rows = [range(i, min(i + many, first + size)) for first in range(0, outputs, size) for i in range(first, first + size, many)]
    else:
        step = many // size * size
        rows = [range(i, min(i + step, outputs)) for i in range(0, outputs, step)]
    for some in rows:
        columns = range(some.start // size * inputs // groups, -(-some.stop // size) * inputs // groups) if groups > 1 else None
        restriction = Restriction(named)
        reader = Reader(restriction.of(expression, some, columns, inputs), restriction.tensors, len(rows))
        yield Part(reader, slice(some.start, some.stop), columns.start if columns else 0, outputs)


def output_channels(expression: Expression, tensors: Tensors) -> int:
    """The number of output channels that an expression's tensors tell, 0 where they do not.

    >>> output_channels(Sequence((Conv("w"), Pad((1, 1)))), {"w": np.ones((4, 3, 1, 1))})
    4
    """
    match expression:
        case Conv():
            return len(tensors[expression.weight])
        case Sum():
            return max(output_channels(term, tensors) for term in expression.terms)
        case Sequence():
            return next(filter(None, (output_channels(step, tensors) for step in expression.steps[::-1])), 0)
    return input_channels(expression, tensors)


def common_groups(expression: Expression) -> int:
    """The number of groups in which the whole expression is block-diagonal, as far as its convolutions tell."""
    return math.gcd(*(leaf.groups or 1 for leaf in leaves(expression) if isinstance(leaf, Conv))) or 1


def can_restrict(expression: Expression) -> bool:
    """Whether `Restriction` knows all its nodes."""
    return all(isinstance(node, (Sum, Sequence, BatchNorm, Pad, AvgPool, Identity))
               or (isinstance(node, Conv) and not (node.transposed or node.shape or node.in_turn))
               or (isinstance(node, Scale) and node.row is None) for node in nodes(expression))


def _steps(expression: Expression) -> Iterator[Expression]:
    """What follows one another in an expression, sequences inside it dissolved."""
    if isinstance(expression, Sequence):
        for step in expression.steps:
            yield from _steps(step)
    else:
        yield expression


class Restriction:
    """Expressions over parts of tensors; `tensors` grows by those parts, which are views wherever they can be.

    What scales each channel by itself keeps the channels that are wanted, from either end up to the first convolution of a chain; of that its
    rows or columns are kept. Where there is none, some rows of the identity stand in front.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = dict(tensors)

    def of(self, expression: Expression, rows: range | None, columns: range | None, channels: int) -> Expression:
        """Outputs `rows` of an expression that acts on `channels`, where no inputs but `columns` are other than 0; None stands for all."""
        if isinstance(expression, Sum):
            inputs = input_channels(expression, self.tensors) or channels
            return Sum(tuple(self.of(term, rows, columns, inputs) for term in expression.terms))
        return Sequence(tuple(self._steps(list(_steps(expression)), rows, columns, channels)))

    def _steps(self, steps: list[Expression], rows: range | None, columns: range | None, channels: int) -> list[Expression]:
        behind: list[Expression] = []
        while steps:
            step = steps.pop()
            if isinstance(step, Conv) and not self._is_depthwise(step):
                whole, steps = (columns, steps) if not self._mixes(steps) else (None, self._front(steps, columns, channels))
                return [*steps, self._conv(step, rows, whole), *behind]
            if isinstance(step, Sum):
                inputs = input_channels(step, self.tensors) or channels
                whole, steps = (columns, steps) if not self._mixes(steps) else (None, self._front(steps, columns, channels))
                return [*steps, self.of(step, rows, whole, inputs), *behind]
            behind.insert(0, self._channelwise(step, rows))
        if rows == columns:  # whole groups of channels, or all
            return behind or [Identity()]
        return [self._choice(rows, columns, channels), *behind]

    def _front(self, steps: list[Expression], columns: range | None, channels: int) -> list[Expression]:
        """The steps before the last convolution, restricted to some inputs; the shifts of the other channels stay."""
        if columns is None:
            return steps
        for i, step in enumerate(steps):
            if isinstance(step, Conv) and not self._is_depthwise(step):
                return [*steps[:i], self._conv(step, None, columns), *steps[i + 1:]]
            if isinstance(step, Sum):
                return [*steps[:i], self.of(step, None, columns, input_channels(step, self.tensors) or channels), *steps[i + 1:]]
            if not isinstance(step, Pad):
                return [*steps[:i], self._choice(None, columns, channels), *steps[i:]]
        return steps

    @staticmethod
    def _mixes(steps: list[Expression]) -> bool:
        """Whether anything but padding is among some steps."""
        return any(not isinstance(step, Pad) for step in steps)

    def _is_depthwise(self, conv: Conv) -> bool:
        rows, per_group = self.tensors[conv.weight].shape[:2]
        return per_group == 1 and rows == conv.groups and rows > 1

    def _channelwise(self, step: Expression, rows: range | None) -> Expression:
        """A step that works on each channel by itself."""
        if rows is None or isinstance(step, (Pad, AvgPool, Identity)):
            return step
        names = [name for name in ("mean", "var", "weight", "bias", "factor") if getattr(step, name, None)]
        kept = {name: self._part(getattr(step, name), rows) for name in names}
        return replace(step, **kept, groups=len(rows)) if isinstance(step, Conv) else replace(step, **kept)  # type: ignore[arg-type]

    def _part(self, name: str, rows: range) -> str:
        """The name of a tensor with some of its channels, along whichever axis they lie; one number stands for all."""
        tensor = self.tensors[name]
        if tensor.size == 1:
            return name
        axis = next(i for i, n in enumerate(tensor.shape) if n > 1) if tensor.shape[0] == 1 else 0
        return self._keep(f"{name}[{rows}]", tensor[(slice(None),) * axis + (slice(rows.start, rows.stop),)])

    def _keep(self, name: str, tensor: Array) -> str:
        self.tensors[name] = tensor
        return name

    def _conv(self, conv: Conv, rows: range | None, columns: range | None) -> Conv:
        """A convolution with some of its outputs and inputs: whole groups, a part of one, or else dense."""
        if rows is None and columns is None:
            return conv
        weight, groups = self.tensors[conv.weight], conv.groups or 1
        outputs, per_group = weight.shape[:2]
        size = outputs // groups
        wanted = range(per_group * groups) if columns is None else columns
        chosen = range(outputs) if rows is None else rows
        group = chosen.start // size
        whole = -(-len(chosen) // size)
        own = range(group * per_group, (group + whole) * per_group)  # the inputs of the groups from the first on
        if chosen == range(group * size, (group + whole) * size) and wanted == own:
            part, groups = weight[chosen.start:chosen.stop], whole
        elif (chosen.stop - 1) // size == group and own.start <= wanted.start and wanted.stop <= own.start + per_group:
            part, groups = weight[chosen.start:chosen.stop, wanted.start - own.start:wanted.stop - own.start], 1
        else:
            part, groups = self._dense(weight, size, chosen, wanted), 1
        vectors = {key: value and self._part(value, chosen) for key, value in (("bias", conv.bias), ("factor", conv.factor))}
        return replace(conv, weight=self._keep(f"{conv.weight}[{chosen}, {wanted}]", part), groups=groups, **vectors)

    @staticmethod
    def _dense(weight: Array, size: int, rows: range, columns: range) -> Array:
        """Rows and columns of a kernel in groups of `size` outputs, zeros between the groups."""
        per_group = weight.shape[1]
        part = np.zeros((len(rows), len(columns), *weight.shape[2:]), weight.dtype)
        for i, row in enumerate(rows):
            first = row // size * per_group
            start, stop = max(first, columns.start), min(first + per_group, columns.stop)
            if start < stop:
                part[i, start - columns.start:stop - columns.start] = weight[row, start - first:stop - first]
        return part

    def _choice(self, rows: range | None, columns: range | None, channels: int) -> Conv:
        """Rows and columns of the identity."""
        wanted, chosen = (range(channels) if some is None else some for some in (columns, rows))
        matrix = np.eye(len(chosen), len(wanted), chosen.start - wanted.start)
        return Conv(self._keep(f"[{chosen}, {wanted}]", matrix), stride=1, groups=1)


class Pairs:
    """Single outputs and inputs of an expression that can be restricted, of the parameters behind both alone; counterpart of `Rows`.

    A pair has as many products as channels lie between, a row as many times more as there are inputs. That row is worth its price only as
    fractions, which are multiplied over a common denominator.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.products: Counter[Scalars] = Counter()

    def entry(self, row: int, column: int, outputs: int) -> Callable[[Scalars], AffineConv]:
        """One of the `outputs` and one input channel of the whole map, whose borders are known to be exact; see `correctly_rounded`."""
        expression, tensors = self.reader.expression, self.reader.tensors
        restriction = Restriction({name: tensors[name] for name in tensor_names(expression)})
        inputs = input_channels(expression, tensors)
        pair = restriction.of(expression, range(row, row + 1), range(column, column + 1), inputs)

        def read(scalars: Scalars) -> AffineConv:
            self.reader.budget.check(scalars, self.products[scalars])
            part = Reader(pair, restriction.tensors)
            conv = part.read(pair, scalars, input_channels(pair, restriction.tensors))
            self.products[scalars] += part.products
            return conv
        return read
