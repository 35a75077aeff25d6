"""RepVGG classifiers: the published ones by name, and small ones, generic in image size, channels and widths."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import ArgumentError
from npreparam._shapes import as_int
from npreparam.nn import Conv2d, GlobalAvgPool, Linear, Module, RepVGGBlock, Sequential


class Layer(NamedTuple):
    """The shape of one block."""

    inputs: int
    outputs: int
    stride: int
    groups: int

    def parameters(self, deploy: bool = True) -> int:
        """Trained numbers: of the one 3x3 convolution with bias, or of the branches with their batch norms."""
        matrix = self.outputs * self.inputs // self.groups
        if deploy:
            return 9 * matrix + self.outputs
        norms = 3 if self.inputs == self.outputs and self.stride == 1 else 2
        return 10 * matrix + 2 * norms * self.outputs


@dataclass(frozen=True)
class RepVGGSpec:
    """The shape of a RepVGG network: widths[i] channels in the depths[i] blocks of stage i, of which every first one halves the image.

    Every second block from the third on has its channels in `groups`; the first stage halves the image only if `halve_first`.

    >>> spec = RepVGGSpec(widths=(8, 16), depths=(1, 2))
    >>> [(layer.inputs, layer.outputs, layer.stride) for layer in spec.layers()]
    [(3, 8, 2), (8, 16, 2), (16, 16, 1)]
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    groups: int = 1
    halve_first: bool = True

    def layers(self, in_channels: int = 3) -> Iterator[Layer]:
        """The blocks in order."""
        channels, number = in_channels, 0
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for i in range(depth):
                halve = i == 0 and (stage > 0 or self.halve_first)
                yield Layer(channels, width, 2 if halve else 1, self.groups if number and number % 2 == 0 else 1)
                channels, number = width, number + 1

    def parameters(self, classes: int = 1000, in_channels: int = 3, deploy: bool = True) -> int:
        """Number of trained numbers, of the deploy network or of the one with branches, counted from shapes alone.

        >>> repvgg_spec("B3").parameters()
        110960872
        """
        return sum(layer.parameters(deploy) for layer in self.layers(in_channels)) + (self.widths[-1] + 1) * classes


A, B = (1, 2, 4, 14, 1), (1, 4, 6, 16, 1)
# name: depths, width multipliers a and b
NETS: dict[str, tuple[tuple[int, ...], float, float]] = {
    "A0": (A, 0.75, 2.5), "A1": (A, 1, 2.5), "A2": (A, 1.5, 2.75), "B0": (B, 1, 2.5), "B1": (B, 2, 4), "B2": (B, 2.5, 5), "B3": (B, 3, 5)}
GROUPED = {f"{name}g{groups}": (name, groups) for name in ("B1", "B2", "B3") for groups in (2, 4)}


def repvgg_spec(name: str) -> RepVGGSpec:
    """The shape of a published network: A0, A1, A2, B0, B1, B2, B3, and B1 to B3 with g2 or g4 behind the name.

    Widths are min(64, 64a), 64a, 128a, 256a, 512b. Nothing is allocated: its methods count and list what `repvgg_net` makes.

    Raises ArgumentError for another name.

    Source: Ding et al., RepVGG, arXiv 2101.03697, tables 2 and 3, section 4.1 on groups.

    >>> repvgg_spec("A0").widths, repvgg_spec("B1g4").groups
    ((48, 48, 96, 192, 1280), 4)
    """
    base, groups = GROUPED.get(name, (name, 1))
    if base not in NETS:
        raise ArgumentError(f"`name` (={name!r}) must be one of {', '.join([*NETS, *GROUPED])}")
    depths, a, b = NETS[base]
    widths = (min(64, 64 * a), 64 * a, 128 * a, 256 * a, 512 * b)
    return RepVGGSpec(tuple(int(width) for width in widths), depths, groups)


class RepVGG(Module):
    """Stages of RepVGG blocks, then global average pooling and a linear layer.

    The first block of every stage but the first halves the image. `widths[i]` are the channels of stage i, `depths[i]` its blocks. The
    published networks, in which the first stage halves it too, are made by `repvgg_net`.

    Source: Ding et al., arXiv 2101.03697, table 2, scaled down.

    >>> RepVGG(3, classes=5, rng=np.random.default_rng(0))(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 5)
    """

    def __init__(self, in_channels: int = 1, classes: int = 10, widths: Sequence[int] = (16, 32, 64), depths: Sequence[int] = (1, 2, 2), *,
                 rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        if len(widths) != len(depths) or not widths or min(depths) < 1:
            raise ArgumentError(f"`widths` (={widths!r}) and `depths` (={depths!r}) must be as long as each other, every depth at least 1")
        self._build(RepVGGSpec(tuple(widths), tuple(depths), halve_first=False), in_channels, classes, rng, dtype)

    @classmethod
    def of(cls, spec: RepVGGSpec, classes: int, in_channels: int, *, rng: np.random.Generator, dtype: DTypeLike) -> RepVGG:
        """The network of that shape."""
        network = cls.__new__(cls)
        network._build(spec, in_channels, classes, rng, dtype)
        return network

    def _build(self, spec: RepVGGSpec, in_channels: int, classes: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.blocks = Sequential(*(RepVGGBlock(layer.inputs, layer.outputs, stride=layer.stride, groups=layer.groups, rng=rng, dtype=dtype)
                                   for layer in spec.layers(in_channels)))
        self.pool = GlobalAvgPool()
        self.linear = Linear(spec.widths[-1], classes, rng=rng, dtype=dtype)

    def forward(self, x: Any, training: bool) -> Any:
        """Logits of the classes."""
        return self.linear(self.pool(self.blocks(x, training), training), training)

    def fuse(self) -> Sequential:
        """The deploy network: every block one 3x3 convolution with ReLU. Nothing that is done to it changes this network."""
        convolutions: list[Conv2d] = [block.fuse() for block in self.blocks]
        return Sequential(*convolutions, self.pool, copy.copy(self.linear))


def repvgg_net(name: str, classes: int = 1000, *, in_channels: int = 3, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> RepVGG:
    """A published RepVGG network with its branches, fresh parameters; `fuse()` gives the deploy network.

    `name` as in `repvgg_spec`, which says how many parameters that are (B3: 123 million, half a gigabyte) before they are made.

    Raises ArgumentError.

    Source: Ding et al., RepVGG, arXiv 2101.03697, section 4.1.

    >>> network = repvgg_net("A0", 10, rng=np.random.default_rng(0))
    >>> network(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 10)
    """
    return RepVGG.of(repvgg_spec(name), as_int(classes, "classes", 1), as_int(in_channels, "in_channels", 1), rng=rng, dtype=dtype)
