"""Whole checkpoints: every block replaced by the convolution that it is, each with its certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numpy.typing import DTypeLike

from npreparam._errors import ArgumentError, FusionError
from npreparam.checkpoints._read import Array, Tensors, input_channels
from npreparam.checkpoints._recognise import Block, Recognition
from npreparam.checkpoints._restrict import parts_of
from npreparam.checkpoints.certificate import Certificate, certify
from npreparam.checkpoints.expression import BatchNorm, Conv, Sequence, leaves, nodes, tensor_names
from npreparam.checkpoints.fold import check, fold, kernel_of
from npreparam.fuse import is_no_larger
from npreparam.fuse.scalars import FLOAT64

if TYPE_CHECKING:
    from npreparam.checkpoints.graph._region import Region

Step = Callable[[], None]


def nothing() -> None:
    """No progress to show."""


@dataclass(frozen=True, eq=False)
class Row:
    """One fused block: parameters before, those after, and the certificates for |x| <= X and, where there are, for real inputs.

    >>> import numpy as np
    >>> row = Row(Block("a", "conv_bn", Conv("c.weight"), "a", ("c.weight",)), 12, np.ones((2, 2, 1, 1)), np.ones(2), Certificate(1.0, 0.5, 0.0, 0))
    >>> row.after, row.held
    (6, True)
    """

    block: Block | Region
    before: int
    weight: Array
    bias: Array
    certificate: Certificate
    on_inputs: Certificate | None = None
    rounding: str = ""

    @property
    def after(self) -> int:
        """Number of parameters."""
        return self.weight.size + self.bias.size

    @property
    def held(self) -> bool:
        """Whether it is within its bounds."""
        return self.certificate.held and (self.on_inputs is None or self.on_inputs.held)


@dataclass(eq=False)
class Fused:
    """What became of a checkpoint: its tensors, and the fused blocks; in lines for people, what stayed as it was and what went wrong.

    `kept` are the blocks that would be larger as one convolution, with the reason, `refused` those that cannot be fused and what was left
    over of half blocks; `faults` are broken bounds and tensors that are not what they should be.

    >>> Fused(refused=["a (drb) is not fused: eps is unknown"]).held
    True
    """

    tensors: dict[str, Array] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every fused block is within its bounds."""
        return all(row.held for row in self.rows)


@dataclass(frozen=True, eq=False)
class Measure:
    """For which inputs the certificates are: those of at most `largest`, and real ones, one array for all blocks it fits or by block name.

    >>> Measure(largest=255.0).inputs is None
    True
    """

    largest: float = 1.0
    inputs: Array | Mapping[str, Array] | None = None

    def certificates(self, block: Block, tensors: Tensors, weight: Array, bias: Array) -> tuple[Certificate, Certificate | None]:
        """Both certificates of a block."""
        real = self.inputs.get(block.name) if isinstance(self.inputs, Mapping) else self.inputs
        if real is not None and (real.shape[1] != input_channels(block.expression, tensors) or weight.ndim != 4):
            real = None
        found = certify(block, tensors, weight, bias, self.largest)
        return found, None if real is None else certify(block, tensors, weight, bias, inputs=real)


def fuse(tensors: Tensors, found: Recognition, dtype: DTypeLike | None = None, *, insist: bool = False, measure: Measure | None = None,
         step: Step = nothing) -> Fused:
    """A checkpoint with every block that `recognise` found as one convolution, under the names that its authors give to the fused one.

    A block that would have more weights as one convolution than now (`npreparam.fuse.is_no_larger`) keeps its convolutions, with the batch
    norms behind them folded, unless `insist`. Blocks that cannot be fused stay as they are and are told in `refused`. `step` is called after
    each block. The tensors given never change.

    Rounding: as `fold`.

    Raises ArgumentError where two tensors of the result would have one name.

    >>> import numpy as np
    >>> from npreparam.checkpoints import recognise
    >>> norm = {f"bn.{n}": np.ones(2, np.float32) for n in ("weight", "bias", "running_mean", "running_var")}
    >>> tensors = {"c.weight": np.ones((2, 2, 1, 1), np.float32), **norm}
    >>> fused = fuse(tensors, recognise(tensors, stride=1))
    >>> list(fused.tensors), fused.rows[0].before, fused.rows[0].after, fused.held
    (['weight', 'bias'], 12, 6, True)
    """
    result, made, measure = Fused(), {}, measure or Measure()
    for block in found.blocks:
        try:
            for part in _planned(block, tensors, insist, result):
                folded = fold(part, tensors, dtype)
                certificates = measure.certificates(part, tensors, folded.weight, folded.bias)
                result.rows.append(Row(part, parameters(part, tensors), folded.weight, folded.bias, *certificates, folded.rounding))
                new = dict(zip(names_of(part), (folded.weight, folded.bias), strict=True))
                made |= dict.fromkeys(part.tensors, new)
        except (FusionError, ArgumentError) as error:
            result.refused.append(f"{block.name} ({block.family}) is not fused: {error}")
        step()
    result.refused += _left_over(found)
    result.faults += beyond(result.rows)
    for name, array in tensors.items():
        for key, value in made.get(name, {name: array}).items():
            if key in result.tensors and result.tensors[key] is not value:
                raise ArgumentError(f"two tensors of the output would be called {key}; describe the family with another `fused`")
            result.tensors[key] = value
    return result


def verify(tensors: Tensors, stored: Tensors, found: Recognition, *, measure: Measure | None = None, step: Step = nothing) -> Fused:
    """Check that `stored` is what fusing `tensors` gives: every number of every block, and all other tensors bit for bit.

    A block that one convolution would make larger may be fused or not, one that cannot be fused must be as it was.

    >>> import numpy as np
    >>> from npreparam.checkpoints import recognise
    >>> norm = {f"bn.{n}": np.ones(2, np.float32) for n in ("weight", "bias", "running_mean", "running_var")}
    >>> tensors = {"c.weight": np.ones((2, 2, 1, 1), np.float32), **norm}
    >>> found = recognise(tensors, stride=1)
    >>> stored = fuse(tensors, found).tensors
    >>> verify(tensors, stored, found).faults, verify(tensors, {**stored, "bias": stored["bias"] + 1}, found).held
    ([], False)
    """
    result, expected, measure = Fused(dict(stored)), {*found.passed_through, *found.left_over}, measure or Measure()
    for block in found.blocks:
        same = block.tensors
        try:
            insisted = getattr(stored.get(names_of(block)[0]), "shape", None) == fused_shape(block, tensors)
            parts = _planned(block, tensors, insisted, result)
            same = tuple(name for name in block.tensors if not any(name in part.tensors for part in parts))
            expected |= {name for part in parts for name in names_of(part)}
            for part in parts:
                weight, bias = (stored[name] for name in names_of(part))
                certificates = measure.certificates(part, tensors, weight, bias)
                result.rows.append(Row(part, parameters(part, tensors), weight, bias, *certificates))
        except KeyError as error:
            result.faults.append(f"{block.name}: there is no {error.args[0]} in the fused file")
        except (FusionError, ArgumentError) as error:
            result.refused.append(f"{block.name} ({block.family}) cannot be checked: {error}")
            if block.open:  # fused or not, nobody can tell
                same, expected = (), {*expected, *block.tensors, *names_of(block)}
        expected |= set(same)
        result.faults += _changed(same, tensors, stored)
        step()
    result.refused += _left_over(found)
    result.faults += [*beyond(result.rows), *_changed((*found.passed_through, *found.left_over), tensors, stored)]
    result.faults += [f"{name} is in the fused file alone" for name in stored if name not in expected]
    return result


def _planned(block: Block, tensors: Tensors, insist: bool, result: Fused) -> tuple[Block, ...]:
    """The block, or where one convolution would be larger the pairs in it of a convolution and its batch norms."""
    shape = fused_shape(block, tensors)
    kernels = [tensors[leaf.weight].shape for leaf in leaves(block.expression) if isinstance(leaf, Conv)]
    if insist or not kernels or is_no_larger(shape, kernels):
        return (block,)
    now = sum(tensors[leaf.weight].size for leaf in leaves(block.expression) if isinstance(leaf, Conv))
    parts = tuple(_pairs(block))
    more = f", its batch norms folded into {len(parts)} of them" if parts else ""
    result.kept[block.name] = f"one {'x'.join(map(str, shape))} kernel would be larger than its {len(kernels)} of {now:,} weights{more}"
    return parts


def _pairs(block: Block) -> Iterator[Block]:
    """The convolutions of a block with the batch norms directly behind them, each as a block by itself."""
    for node in nodes(block.expression):
        steps = node.steps if isinstance(node, Sequence) else ()
        for at, conv in enumerate(steps):
            norms = []
            while len(steps) > at + 1 + len(norms) and isinstance(steps[at + 1 + len(norms)], BatchNorm):
                norms.append(steps[at + 1 + len(norms)])
            if isinstance(conv, Conv) and norms and conv.weight.endswith(".weight") and not conv.shape and not conv.factor:
                expression, name = Sequence((conv, *norms)), conv.weight.removesuffix(".weight")
                used = tensor_names(expression)
                counters = {f"{norm.mean.rpartition('.')[0]}.num_batches_tracked" for norm in norms if isinstance(norm, BatchNorm)}
                yield Block(name, block.family, expression, name, (*used, *(t for t in block.tensors if t in counters)))


def fused_shape(block: Block, tensors: Tensors) -> tuple[int, ...]:
    """The shape of the kernel that a block becomes. Raises FusionError for one that cannot be fused."""
    check(block, tensors)
    first = next(parts_of(block.expression, tensors))
    rows, *rest = kernel_of(first.reader(FLOAT64))[0].shape
    return first.outputs or rows, *rest


def names_of(block: Block) -> tuple[str, str]:
    """What the fused weight and bias are called."""
    return f"{block.fused}.weight".lstrip("."), f"{block.fused}.bias".lstrip(".")


def parameters(block: Block, tensors: Tensors) -> int:
    """Number of parameters of a block, without stale ones and the counters of its batch norms."""
    return sum(tensors[name].size for name in block.tensors if name not in block.stale and not name.endswith(".num_batches_tracked"))


def beyond(rows: list[Row]) -> Iterator[str]:
    """A line for each row that is beyond its bounds."""
    for row in rows:
        for found in (row.certificate, row.on_inputs):
            if found is not None and not found.held:
                measured = "-" if found.measured is None else f"{found.measured:.2e}"
                yield (f"{row.block.name}: {found.wrong} of {row.after} stored numbers are not the block's, rounded; "
                       f"measured {measured}, bound {found.bound:.3g}")
                break


def _left_over(found: Recognition) -> list[str]:
    """One line for each reason."""
    names: dict[str, list[str]] = {}
    for name, why in found.left_over.items():
        names.setdefault(why, []).append(name)
    return [f"{some[0]} {f'and {len(some) - 1} more are' if some[1:] else 'is'} left over: {why}" for why, some in names.items()]


def _changed(names: Iterable[str], tensors: Tensors, stored: Tensors) -> list[str]:
    return [f"{name} does not pass through bit for bit" for name in names if not _same(tensors[name], stored.get(name))]


def _same(a: Array, b: Array | None) -> bool:
    return b is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
