"""The published MobileOne classifiers, by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import ArgumentError
from npreparam._shapes import as_int
from npreparam.nn import GlobalAvgPool, Linear, Module, Sequential, blocks, fuse

DEPTHS, BASE = (2, 8, 10, 1), (64, 128, 256, 512)


class Layer(NamedTuple):
    """The shape of one block."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    branches: int
    squeeze: bool

    def parameters(self, deploy: bool = True) -> int:
        """Trained numbers: of the one convolution with bias, or of the branches with their batch norms; and of the gate."""
        matrix, n = self.outputs * self.inputs // self.groups, self.outputs
        middle = max(1, n // 16)
        gate = 2 * middle * n + middle + n if self.squeeze else 0
        if deploy:
            return self.kernel**2 * matrix + n + gate
        scale = matrix + 2 * n if self.kernel > 1 else 0
        skip = 2 * n if self.inputs == n and self.stride == 1 else 0
        return self.branches * (self.kernel**2 * matrix + 2 * n) + scale + skip + gate


@dataclass(frozen=True)
class MobileOneSpec:
    """The shape of a MobileOne network: a 3x3 block that halves the image, then stages of depthwise and pointwise blocks in turn.

    `widths` are the channels of the stages, of which each halves the image; every kxk or 1x1 convolution but the first has `branches` twins.
    With `squeeze` the last half of the third stage and the last stage have gates.

    >>> spec = MobileOneSpec(widths=(8, 16), depths=(1, 1))
    >>> [(layer.inputs, layer.outputs, layer.kernel, layer.groups) for layer in spec.layers()]
    [(3, 8, 3, 1), (8, 8, 3, 8), (8, 8, 1, 1), (8, 8, 3, 8), (8, 16, 1, 1)]
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...] = DEPTHS
    branches: int = 1
    squeeze: bool = False

    def layers(self, in_channels: int = 3) -> Iterator[Layer]:
        """The blocks in order."""
        channels = min(64, self.widths[0])
        yield Layer(in_channels, channels, 3, 2, 1, 1, False)
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            gates = {2: depth // 2, 3: depth}.get(stage, 0) if self.squeeze else 0
            for i in range(depth):
                gated = i >= depth - gates
                yield Layer(channels, channels, 3, 2 if i == 0 else 1, channels, self.branches, gated)
                yield Layer(channels, width, 1, 1, 1, self.branches, gated)
                channels = width

    def parameters(self, classes: int = 1000, in_channels: int = 3, deploy: bool = True) -> int:
        """Number of trained numbers, of the deploy network or of the one with branches, counted from shapes alone.

        >>> mobileone_spec("S4").parameters()
        14838352
        """
        return sum(layer.parameters(deploy) for layer in self.layers(in_channels)) + (self.widths[-1] + 1) * classes


# name: width multipliers of the stages, branches, gates
NETS: dict[str, tuple[tuple[float, ...], int, bool]] = {
    "S0": ((0.75, 1, 1, 2), 4, False), "S1": ((1.5, 1.5, 2, 2.5), 1, False), "S2": ((1.5, 2, 2.5, 4), 1, False),
    "S3": ((2, 2.5, 3, 4), 1, False), "S4": ((3, 3.5, 3.5, 4), 1, True)}


def mobileone_spec(name: str) -> MobileOneSpec:
    """The shape of a published network, S0 to S4. Nothing is allocated: its methods count and list what `mobileone_net` makes.

    Raises ArgumentError for another name.

    Source: Vasu et al., MobileOne, arXiv 2206.04040, table 2; branches and gates as in the authors' code (apple/ml-mobileone).

    >>> mobileone_spec("S0").widths
    (48, 128, 256, 1024)
    """
    if name not in NETS:
        raise ArgumentError(f"`name` (={name!r}) must be one of {', '.join(NETS)}")
    factors, branches, squeeze = NETS[name]
    return MobileOneSpec(tuple(int(base * factor) for base, factor in zip(BASE, factors, strict=True)), DEPTHS, branches, squeeze)


class MobileOne(Module):
    """MobileOne blocks, then global average pooling and a linear layer.

    >>> network = MobileOne(MobileOneSpec((4, 8), (1, 1), 2), 5, rng=np.random.default_rng(0))
    >>> network(np.zeros((1, 3, 8, 8), np.float32)).shape
    (1, 5)
    """

    def __init__(self, spec: MobileOneSpec, classes: int, in_channels: int = 3, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.blocks = Sequential(*(
            blocks.mobileone_block(layer.inputs, layer.outputs, layer.kernel, branches=layer.branches, stride=layer.stride, groups=layer.groups,
                                   squeeze=layer.squeeze, rng=rng, dtype=dtype) for layer in spec.layers(in_channels)))
        self.pool = GlobalAvgPool()
        self.linear = Linear(spec.widths[-1], classes, rng=rng, dtype=dtype)

    def forward(self, x: Any, training: bool) -> Any:
        """Logits of the classes."""
        return self.linear(self.pool(self.blocks(x, training), training), training)

    def fuse(self) -> Sequential:
        """The deploy network: every block one convolution, with its gate and ReLU. Nothing that is done to it changes this network."""
        return Sequential(*(fuse(block) for block in self.blocks), self.pool, copy.copy(self.linear))


def mobileone_net(name: str, classes: int = 1000, *, in_channels: int = 3, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> MobileOne:
    """A published MobileOne network with its branches, fresh parameters; `fuse()` gives the deploy network.

    `name` as in `mobileone_spec`, which says how many parameters that are before they are made.

    Raises ArgumentError.

    Source: Vasu et al., MobileOne, arXiv 2206.04040, section 3.

    >>> network = mobileone_net("S1", 10, rng=np.random.default_rng(0))
    >>> network(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 10)
    """
    return MobileOne(mobileone_spec(name), as_int(classes, "classes", 1), as_int(in_channels, "in_channels", 1), rng=rng, dtype=dtype)
