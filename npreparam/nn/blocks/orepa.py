"""OREPA: branches added up in weight space, one convolution even in training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import fuse, ops
from npreparam._errors import ShapeError
from npreparam._shapes import as_int
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import FLOAT64, Scalars
from npreparam.nn.containers import Sequential
from npreparam.nn.init import he_normal
from npreparam.nn.layers import BatchNorm2d
from npreparam.nn.module import Module
from npreparam.tape import Tensor


class OREPAConv(Module):
    """A kxk convolution whose weights are a sum of branches, each with a trained scale for each output channel.

    w = v0*K + v1*(A average) + v2*(P prior) + v3*centre(W)

    K is kxk, A, P and W are 1x1, `average` is 1/k^2 everywhere, `prior` a cosine of the row's frequency. All happens to weights, so no border
    is in question.

    Source: Hu et al., Online convolutional re-parameterization, arXiv 2204.00826, section 3.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, rng: np.random.Generator,
                 dtype: DTypeLike = np.float32) -> None:
        groups = as_int(groups, "groups", 1)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(f"`in_channels` (={in_channels}) and `out_channels` (={out_channels}) must be divisible by `groups` (={groups})")
        self.geometry = (stride, kernel // 2, 1, groups)
        rows = out_channels, in_channels // groups
        self.weight_orepa_origin = Tensor(he_normal((*rows, kernel, kernel), rng, dtype), "weight_orepa_origin")
        for name in ("avg_conv", "pfir_conv", "point"):
            setattr(self, f"weight_orepa_{name}", Tensor(he_normal((*rows, 1, 1), rng, dtype), f"weight_orepa_{name}"))
        self.weight_orepa_avg_avg = np.full((kernel, kernel), 1 / kernel**2, dtype)
        self.weight_orepa_prior = _prior(out_channels, kernel).astype(dtype)
        centre = np.zeros((kernel, kernel), dtype)
        centre[kernel // 2, kernel // 2] = 1
        self.centre = centre
        self.vector = Tensor(np.full((4, out_channels), 0.25, dtype), "vector")

    def weights(self, x: Any, training: bool) -> Any:
        """The sum of the branches."""
        origin, average, prior, point, vector = (self.use(p, x, training) for p in (
            self.weight_orepa_origin, self.weight_orepa_avg_conv, self.weight_orepa_pfir_conv, self.weight_orepa_point, self.vector))
        branches = (origin, ops.mul(average, self.weight_orepa_avg_avg), ops.mul(prior, self.weight_orepa_prior), ops.mul(point, self.centre))
        total = None
        for i, branch in enumerate(branches):
            scaled = ops.mul(branch, ops.reshape(ops.getitem(vector, i), (-1, 1, 1, 1)))
            total = scaled if total is None else ops.add(total, scaled)
        return total

    def forward(self, x: Any, training: bool) -> Any:
        """The convolution of x."""
        return ops.conv2d(x, self.weights(x, training), None, *self.geometry)

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The sum of the branches."""
        origin, average, prior, point = (scalars.numbers(p.value) for p in (
            self.weight_orepa_origin, self.weight_orepa_avg_conv, self.weight_orepa_pfir_conv, self.weight_orepa_point))
        box, waves, centre = (scalars.numbers(fixed) for fixed in (self.weight_orepa_avg_avg, self.weight_orepa_prior, self.centre))
        maps = [replace(fuse.from_conv(kernel, None, *self.geometry), roundings=1)
                for kernel in (origin, average * box, prior * waves, point * centre)]
        return fuse.add(*(fuse.scale_after(conv, v) for conv, v in zip(maps, scalars.numbers(self.vector.value), strict=True)))


def _prior(channels: int, kernel: int) -> Any:
    """(channels, 1, kernel, kernel): cos(pi * frequency * (row + 1/2) / kernel), frequencies in turn, half of them along the columns."""
    frequency, place = np.arange(channels) // 2 % kernel, (np.arange(kernel) + 0.5) / kernel
    waves = np.cos(np.pi * frequency[:, None] * place)
    along_rows = np.broadcast_to(waves[:, :, None], (channels, kernel, kernel))
    return np.where((np.arange(channels) % 2 == 0)[:, None, None], along_rows, along_rows.swapaxes(1, 2))[:, None]


def orepa(in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, rng: np.random.Generator,
          dtype: Any = np.float32) -> Sequential:
    """An `OREPAConv` and its batch norm."""
    return Sequential(conv=OREPAConv(in_channels, out_channels, kernel, stride=stride, groups=groups, rng=rng, dtype=dtype),
                      bn=BatchNorm2d(out_channels, dtype=dtype))
