"""A linear block as a neutral expression over tensor names: what a checkpoint says about its algebra, and nothing more.

Sequences apply their first step first. None stands for what neither the state dict nor the family's table says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

Sizes = tuple[int, ...]  # one per spatial axis; empty for a linear layer


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution with the kernel `weight` (O, I/groups, ...), times `factor` per output channel where one is named, plus `bias`.

    Zero padding on both sides of each axis. Transposed kernels are (I, O/groups, ...). With `in_turn` the rows of `weight` are those of the
    groups in turn: row o*groups + g is the o-th output of group g. A 1x1 `weight` times `shape`, a window (...) or one for
    each output channel (O, ...), is a kernel of that window's size.
    """

    weight: str
    bias: str | None = None
    factor: str | None = None
    shape: str | None = None
    padding: Sizes | None = ()
    dilation: int | None = 1
    stride: int | None = None
    groups: int | None = None
    transposed: bool = False
    in_turn: bool = False


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Evaluation-mode batch norm: weight*(x - mean)/sqrt(var + eps) + bias, weight 1 and bias 0 where they are not stored."""

    mean: str
    var: str
    weight: str | None
    bias: str | None
    eps: float | None


@dataclass(frozen=True, slots=True)
class Scale:
    """number * weight * x + bias; the named tensors have one value per channel, or one for all; of a matrix `weight`, one `row`."""

    weight: str | None = None
    bias: str | None = None
    number: float = 1.0
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Pad:
    """Zeros on both sides of each axis; a negative amount crops."""

    amount: Sizes


@dataclass(frozen=True, slots=True)
class AvgPool:
    """The mean over a window, unpadded."""

    kernel: Sizes
    stride: int | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """x itself."""


@dataclass(frozen=True, slots=True)
class Shuffle:
    """The channel shuffle: (groups, channels/groups) transposed."""

    groups: int


@dataclass(frozen=True, slots=True)
class Slice:
    """`count` of the `of` channels, from `first` on."""

    first: int
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Parallel branches on the same input."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    """Parallel branches on the same input, their outputs stacked."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Steps one after the other."""

    steps: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class OnGrid:
    """`term` on images of one `size`, whose pixels are channels: channel (c, h, w) of C*H*W."""

    term: Expression
    size: Sizes


Expression = Conv | BatchNorm | Scale | Pad | AvgPool | Identity | Shuffle | Slice | Sum | Concat | Sequence | OnGrid


def parts(expression: Expression) -> tuple[Expression, ...]:
    """What a sum, concatenation or sequence is made of; of a leaf, nothing."""
    match expression:
        case Sum() | Concat():
            return expression.terms
        case Sequence():
            return expression.steps
        case OnGrid():
            return (expression.term,)
    return ()


def nodes(expression: Expression) -> Iterator[Expression]:
    """An expression and everything in it, from left to right."""
    yield expression
    for part in parts(expression):
        yield from nodes(part)


def leaves(expression: Expression) -> Iterator[Expression]:
    """Everything in an expression that has no parts, from left to right.

    >>> [type(leaf).__name__ for leaf in leaves(Sum((Identity(), Sequence((Pad((1, 1)), Conv("a.weight"))))))]
    ['Identity', 'Pad', 'Conv']
    """
    return (node for node in nodes(expression) if not parts(node))


def tensor_names(expression: Expression) -> list[str]:
    """The names of all tensors in an expression, each once.

    >>> tensor_names(Sequence((Conv("c.weight", "c.bias"), Scale("s"))))
    ['c.weight', 'c.bias', 's']
    """
    values = (getattr(leaf, f.name) for leaf in leaves(expression) if is_dataclass(leaf) for f in fields(leaf))
    return list(dict.fromkeys(value for value in values if isinstance(value, str)))
