"""Regions of a graph that are linear maps of one tensor to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from npreparam._errors import FormatError, FusionError, ShapeError
from npreparam.checkpoints._read import Budget, CostlyError
from npreparam.checkpoints.graph._convolutions import batch_norm, convolution, padding, pool
from npreparam.checkpoints.graph._dense import flatten, gemm
from npreparam.checkpoints.graph._elementwise import channel_slice, concatenation, same, scale, split, total
from npreparam.checkpoints.graph._layout import MOST
from npreparam.checkpoints.graph._model import DOMAINS, Graph
from npreparam.checkpoints.graph._node import Context, Node, Step
from npreparam.fuse import AffineConv, add, compose, identity, select
from npreparam.fuse.affine import apply_to, zeros
from npreparam.fuse.algebra import same_scalars
from npreparam.fuse.scalars import EXACT, Magnitudes, Scalars

OPERATORS: dict[str, Callable[[Node], Step]] = {
    "Conv": convolution,
    "ConvTranspose": convolution,
    "BatchNormalization": batch_norm,
    "AveragePool": pool,
    "Pad": padding,
    "Add": total,
    "Sum": total,
    "Sub": total,
    "Neg": total,
    "Mul": scale,
    "Div": scale,
    "Identity": same,
    "Dropout": same,
    "Concat": concatenation,
    "Split": split,
    "Slice": channel_slice,
    "Gemm": gemm,
    "Flatten": flatten,
}
MOST_STEPS, MOST_REGIONS = 256, 24  # in one region, and tried for one output: more than any published block has


def linear_steps(graph: Graph) -> tuple[dict[int, Step], dict[int, str]]:
    """The nodes that are affine maps by themselves, and why others of these operators are not."""
    steps, reasons = {}, {}
    for i, node in enumerate(graph.nodes):
        if node.domain in DOMAINS and node.op_type in OPERATORS and node.output[0] and node.output[0] not in graph.constants:
            try:
                steps[i] = _fitting(graph, OPERATORS[node.op_type](Node(graph, i)))
            except FusionError as error:
                reasons[i] = str(error)
    return steps, reasons


def _fitting(graph: Graph, step: Step) -> Step:
    """The step. Raises FormatError where its input has other channels or axes than its parameters."""
    shape = graph.shapes.get(step.inputs[0], ())
    if (shape and step.rank not in (0, len(shape) - 2)) or (len(shape) > 1 and step.channels and shape[1] not in (None, step.channels)):
        raise FormatError(f"node {graph.label(step.index)[:80]!r} ({step.op}): its parameters are for {step.channels or 'any number of'} channels "
                          f"over {step.rank or 'any number of'} axes, but its input has shape {list(shape)}")
    return step


class Region:
    """Steps in order from one tensor to another; read over any kind of scalars, whole or one output at a time."""

    def __init__(self, graph: Graph, steps: list[Step], source: str) -> None:
        self.graph, self.steps, self.source = graph, steps, source
        self.output = steps[-1].outputs[0]
        shape = graph.shapes.get(source, ())
        self.channels = max((step.channels for step in steps if source in step.inputs), default=0) or (shape[1] if len(shape) > 1 else 0) or 0
        self.rank = max(step.rank for step in steps)
        self.kernels = [step.kernel for step in steps if step.kernel]
        self.products = self.cost = 0
        self.constant_border = False  # whether a step pads with another number than 0, once it has been read
        self.budget = Budget(not any(step.op == "BatchNormalization" for step in steps))
        self.sizes = Magnitudes(2.0 ** (-960 / self.factors))  # no product of them underflows
        self.read: dict[Any, AffineConv] = {}
        self.rows: dict[tuple[int, Scalars], AffineConv] = {}
        self.counts: dict[str, int] = {}  # of channels of each tensor, once it has been read

    @property
    def name(self) -> str:
        """What it is called in reports: the name of its last node."""
        return self.graph.label(self.steps[-1].index)

    @property
    def family(self) -> str:
        """Its operators, in the order of the graph."""
        return "+".join(step.op for step in self.steps)

    def branches(self) -> int:
        """The largest number of tensors that one of its steps joins."""
        return max(len(step.inputs) for step in self.steps)

    @property
    def numbers(self) -> int:
        """Number of its parameters."""
        return sum(step.numbers for step in self.steps)

    def dtype(self) -> np.dtype[Any]:
        """That of its kernels. Raises FusionError where they differ."""
        dtypes = {step.dtype for step in self.steps if step.dtype is not None}
        if len(dtypes) != 1:
            raise FusionError("its kernels are of several types", "give them one")
        return np.dtype(dtypes.pop())

    @property
    def factors(self) -> int:
        """At most so many parameters are multiplied in one product."""
        depth = {self.source: 0}
        for step in self.steps:
            depth |= dict.fromkeys(step.outputs, step.factors + max(depth[name] for name in step.inputs))
        return 1 + depth[self.output]

    def __call__(self, scalars: Scalars) -> AffineConv:
        """The whole map. Raises FusionError where it is none, CostlyError where these scalars would take too long."""
        scalars = self.budget.kind(scalars)
        self.budget.check(scalars, self.cost)
        key = scalars.floor if isinstance(scalars, Magnitudes) else scalars
        if key not in self.read:
            self.read[key] = self._map(scalars)
        return self.read[key]

    def forget(self) -> None:
        """Free the memory of what has been read."""
        self.read.clear()
        self.rows.clear()

    def _map(self, scalars: Scalars, border: str = "") -> AffineConv:
        """The whole map; `border` as in `compose`."""
        border = border or ("interior" if isinstance(scalars, Magnitudes) else "exact")  # sums of magnitudes do not cancel
        self.products, maps = 0, {self.source: identity(self.channels)}
        for step in self.steps:
            self._check_channels(step, maps)
            context = Context(scalars, tuple(maps[name].outputs for name in step.inputs), self.rank)
            for name, row in zip(step.outputs, step.read(context), strict=True):
                self.constant_border |= any((second.outside != 0).any() for second in row)
                parts = [second if given == self.source else self._then(maps[given], second, border)
                         for given, second in zip(step.inputs, row, strict=True)]
                try:
                    maps[name] = add(*parts)
                except ShapeError as error:
                    raise FusionError(f"its branches have other channels than each other: {error}", "keep it as it is") from None
        self.counts, self.cost = {name: conv.outputs for name, conv in maps.items()}, self.products
        return maps[self.output].lifted(self.rank)

    def check_borders(self) -> None:
        """Raises FusionError where a border seems exact only because float64 rounds a constant to the one that is needed.

        Where that is 0, sums of magnitudes tell: they are 0 if every term is. Another number may also hide a term that it absorbs.
        """
        try:
            if self.constant_border:
                raise FusionError("a border continues with another number than 0", "compare exactly")
            self._map(self.sizes, "exact")
        except FusionError:
            try:
                self(EXACT)
            except CostlyError:
                raise FusionError("whether its border is exact would take too long to tell", "keep its parts") from None
            self(self.sizes)

    def _check_channels(self, step: Step, maps: dict[str, AffineConv]) -> None:
        if step.rank not in (0, self.rank):
            raise FusionError(f"{self.graph.label(step.index)} is over {step.rank} axes, others over {self.rank}", "keep it as it is")
        for name in step.inputs:
            if not maps[name].outputs or step.channels not in (0, maps[name].outputs):
                raise FusionError(f"{self.graph.label(step.index)} takes {step.channels or 'any number of'} channels, "
                                  f"but {name[:80]} has {maps[name].outputs or 'an unknown number'}", "keep it as it is")

    def _then(self, first: AffineConv, second: AffineConv, border: str = "exact") -> AffineConv:
        if len(first.taps) * len(second.taps) * second.outputs * first.inputs // max(1, min(first.groups, second.groups)) > 4 * MOST:
            raise FusionError("one kernel would be too large for memory", "keep its parts")
        self.products += self.budget.price(first, second)
        return compose(second, first, border)

    def entry(self, row: int, column: int, whole: AffineConv) -> Callable[[Scalars], AffineConv]:
        """One output and one input channel of the whole map, whose borders are known to be exact; see `correctly_rounded`."""
        def read(scalars: Scalars) -> AffineConv:
            key = row, self.budget.kind(scalars)
            if not self.rows:
                self.products = 0
            if key not in self.rows:
                self.budget.check(key[1], self.products)
                self.rows[key] = self._row(row, whole, key[1])
            found = self.rows[key]
            return replace(found, blocks=found.blocks[:, :, column:column + 1], outside=found.outside[column:column + 1])

        return read

    def _row(self, row: int, whole: AffineConv, scalars: Scalars) -> AffineConv:
        """One output channel: from its end, so that all products are by a single row; `after` maps tensors to that output."""
        chosen, bias = select(whole.outputs, [row]), np.zeros(1, object)
        after = {self.output: [replace(chosen, blocks=scalars.numbers(chosen.blocks), bias=bias, outside=np.zeros(chosen.inputs, object))]}
        for step in reversed(self.steps):
            parts = [(i, add(*after[name])) for i, name in enumerate(step.outputs) if name in after]
            for i, rest in parts:
                used = np.flatnonzero((rest.blocks != 0).any((0, 1)))
                used = used if len(used) else np.arange(1)
                context = Context(scalars, tuple(self.counts[name] for name in step.inputs), self.rank, used)
                for name, second in zip(step.inputs, step.read(context)[i], strict=True):
                    kept = replace(rest, blocks=rest.blocks[:, :, used], outside=rest.outside[used]) if second.outputs == len(used) else rest
                    kept, second = same_scalars((kept.lifted(self.rank), second.lifted(self.rank)))
                    bias = bias + apply_to(kept, second.bias)
                    shiftless = replace(second, bias=zeros(second.outputs, second.bias))
                    after.setdefault(name, []).append(self._then(shiftless, kept, "interior"))
        found = add(*after[self.source]).lifted(self.rank)
        return replace(found, bias=bias, outside=np.zeros(found.inputs, object), groups=1)


def regions_before(graph: Graph, steps: dict[int, Step], last: int) -> Iterator[Region]:
    """All regions that end with a node, from the smallest: what lies between it and a tensor through which all paths to it lead.

    No tensor inside is read outside or is an output of the graph.
    """
    inside, frontier = {last}, set(steps[last].inputs)
    while len(inside) <= MOST_STEPS:
        if len(frontier) == 1:
            yield Region(graph, [steps[i] for i in sorted(inside)], next(iter(frontier)))
        latest = max(frontier, key=graph.producer)
        maker = graph.producer(latest)
        if maker not in steps or any(name in graph.outputs or not graph.readers.get(name, set()) <= inside for name in graph.nodes[maker].output):
            return
        inside.add(maker)
        frontier = (frontier - set(steps[maker].outputs)) | set(steps[maker].inputs)

