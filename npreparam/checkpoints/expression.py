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

    Zero padding on both sides of each axis. Transposed kernels are (I, O/groups, ...).
    """

    weight: str
    bias: str | None = None
    factor: str | None = None
    padding: Sizes | None = ()
    dilation: int | None = 1
    stride: int | None = None
    groups: int | None = None
    transposed: bool = False


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
    """number * weight * x + bias; the named tensors have one value per channel, or one for all."""

    weight: str | None = None
    bias: str | None = None
    number: float = 1.0


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
class Sum:
    """Parallel branches on the same input."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Steps one after the other."""

    steps: tuple[Expression, ...]


Expression = Conv | BatchNorm | Scale | Pad | AvgPool | Identity | Sum | Sequence


def leaves(expression: Expression) -> Iterator[Expression]:
    """Everything in an expression that is neither a sum nor a sequence, from left to right.

    >>> [type(leaf).__name__ for leaf in leaves(Sum((Identity(), Sequence((Pad((1, 1)), Conv("a.weight"))))))]
    ['Identity', 'Pad', 'Conv']
    """
    if isinstance(expression, (Sum, Sequence)):
        for part in expression.terms if isinstance(expression, Sum) else expression.steps:
            yield from leaves(part)
    else:
        yield expression


def tensor_names(expression: Expression) -> list[str]:
    """The names of all tensors in an expression, each once.

    >>> tensor_names(Sequence((Conv("c.weight", "c.bias"), Scale("s"))))
    ['c.weight', 'c.bias', 's']
    """
    values = (getattr(leaf, f.name) for leaf in leaves(expression) if is_dataclass(leaf) for f in fields(leaf))
    return list(dict.fromkeys(value for value in values if isinstance(value, str)))
