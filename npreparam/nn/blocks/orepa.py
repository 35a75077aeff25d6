"""OREPA: branches added up in weight space, one convolution even in training."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import fuse, ops
from npreparam._errors import ShapeError
from npreparam._shapes import as_int
from npreparam.fuse import AffineConv, identity_kernel
from npreparam.fuse.scalars import FLOAT64, Scalars
from npreparam.nn.channels import Scale
from npreparam.nn.containers import Sequential, Sum
from npreparam.nn.init import he_normal
from npreparam.nn.layers import BatchNorm2d, Conv2d
from npreparam.nn.module import Module
from npreparam.tape import Tensor

MANY = 4  # groups, beyond which the chain of two convolutions has twice the channels between


class OREPAConv(Module):
    """A kxk convolution whose weights are a sum of branches, each with a trained scale for each output channel.

    w = v0*K + v1*(A average) + v2*(P prior) + v3*(W (I + T)) + v4*centre(C) + v5*(V D)

    K is kxk; A, P and C are 1x1, `average` is 1/k^2 everywhere, `prior` a cosine of the row's frequency; W is a kxk convolution after the 1x1
    convolution I + T, which has twice the channels for more than four groups; V is a 1x1 convolution after the depthwise kxk convolution D,
    which gives `expand` channels for each of the input's. All happens to weights, so no border is in question.

    Names and shapes are those of the authors' checkpoints: D (I*expand, 1, k, k), V (O, I*expand/groups, 1, 1), whose rows are those of the
    groups in turn: row o*groups + g is the o-th output of group g.

    Source: Hu et al., Online convolutional re-parameterization, arXiv 2204.00826, section 3; its code (JUGGHM/OREPA_CVPR2022).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, expand: int = 8,
                 rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        groups, expand = as_int(groups, "groups", 1), as_int(expand, "expand", 1)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(f"`in_channels` (={in_channels}) and `out_channels` (={out_channels}) must be divisible by `groups` (={groups})")
        self.geometry = (stride, kernel // 2, 1, groups)
        columns, inner = in_channels // groups, in_channels if groups <= MANY else 2 * in_channels
        shapes = {"origin": (kernel, kernel), "avg_conv": (1, 1), "pfir_conv": (1, 1), "1x1": (1, 1)}
        for name, size in shapes.items():
            self._draw(name, (out_channels, columns, *size), rng, dtype)
        self._draw("1x1_kxk_conv2", (out_channels, inner // groups, kernel, kernel), rng, dtype)
        self._draw("1x1_kxk_idconv1", (inner, columns, 1, 1), rng, dtype)
        self._draw("gconv_dw", (in_channels * expand, 1, kernel, kernel), rng, dtype)
        self._draw("gconv_pw", (out_channels, columns * expand, 1, 1), rng, dtype)
        self.weight_orepa_avg_avg = np.full((kernel, kernel), 1 / kernel**2, dtype)
        self.weight_orepa_prior = _prior(out_channels, kernel).astype(dtype)
        self.id_tensor = np.eye(columns, dtype=dtype)[np.arange(inner) % columns][..., None, None]
        self.vector = Tensor(np.full((6, out_channels), 1 / 6, dtype), "vector")

    def _draw(self, name: str, shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike) -> None:
        setattr(self, f"weight_orepa_{name}", Tensor(he_normal(shape, rng, dtype), f"weight_orepa_{name}"))

    def _centre(self) -> Any:
        """1 in the middle of a kernel."""
        return identity_kernel(1, 1, self.weight_orepa_origin.shape[2])[0, 0].astype(self.vector.dtype)

    def weights(self, x: Any, training: bool) -> Any:
        """The sum of the branches."""
        def own(name: str) -> Any:
            return self.use(getattr(self, f"weight_orepa_{name}"), x, training)

        vector = self.use(self.vector, x, training)
        branches = (own("origin"), ops.mul(own("avg_conv"), self.weight_orepa_avg_avg), ops.mul(own("pfir_conv"), self.weight_orepa_prior[:, None]),
                    self._chained(own("1x1_kxk_conv2"), ops.add(own("1x1_kxk_idconv1"), self.id_tensor)), ops.mul(own("1x1"), self._centre()),
                    self._separated(own("gconv_dw"), own("gconv_pw")))
        scales = (ops.reshape(ops.getitem(vector, i), (-1, 1, 1, 1)) for i in range(len(branches)))
        return reduce(ops.add, map(ops.mul, branches, scales))

    def _chained(self, second: Any, first: Any) -> Any:
        """Weights of a kxk convolution after a 1x1 convolution: for each group, its kernels convolved with the transposed matrix."""
        rows, inner, *size = second.shape
        groups, columns = self.geometry[3], first.shape[1]
        images = ops.transpose(ops.reshape(second, (groups, rows // groups, inner, *size)), (1, 0, 2, 3, 4))
        matrices = ops.transpose(ops.reshape(first, (groups, inner, columns)), (0, 2, 1))
        product = ops.conv2d(ops.reshape(images, (rows // groups, groups * inner, *size)),
                             ops.reshape(matrices, (groups * columns, inner, 1, 1)), None, 1, 0, 1, groups)
        product = ops.transpose(ops.reshape(product, (rows // groups, groups, columns, *size)), (1, 0, 2, 3, 4))
        return ops.reshape(product, (rows, columns, *size))

    def _separated(self, depthwise: Any, pointwise: Any) -> Any:
        """Weights of a 1x1 convolution after a depthwise kxk convolution: sums over the channels between."""
        rows, size, groups, columns = pointwise.shape[0], depthwise.shape[2:], self.geometry[3], self.weight_orepa_1x1.shape[1]
        between = ops.reshape(depthwise, (groups, 1, columns, -1, *size))
        matrix = ops.transpose(ops.reshape(pointwise, (rows // groups, groups, columns, -1, 1, 1)), (1, 0, 2, 3, 4, 5))
        return ops.reshape(ops.sum(ops.mul(matrix, between), axis=3), (rows, columns, *size))

    def forward(self, x: Any, training: bool) -> Any:
        """The convolution of x."""
        return ops.conv2d(x, self.weights(x, training), None, *self.geometry)

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The sum of the branches."""
        def own(name: str) -> Any:
            parameter = getattr(self, f"weight_orepa_{name}")
            return scalars.numbers(parameter.value if isinstance(parameter, Tensor) else parameter)

        def conv(kernel: Any, roundings: int = 1) -> AffineConv:
            return replace(fuse.from_conv(kernel, None, *self.geometry), roundings=roundings)

        groups, (rows, columns, *size), depthwise = self.geometry[3], self.weight_orepa_origin.shape, own("gconv_dw")
        matrix = own("gconv_pw").reshape(rows // groups, groups, columns, -1, 1, 1).swapaxes(0, 1)
        separated = (matrix * depthwise.reshape(groups, 1, columns, -1, *size)).sum(3).reshape(rows, columns, *size)
        first = replace(fuse.from_conv(own("1x1_kxk_idconv1") + scalars.numbers(self.id_tensor), groups=groups), roundings=1)
        branches = (conv(own("origin"), 0), conv(own("avg_conv") * own("avg_avg")), conv(own("pfir_conv") * own("prior")[:, None]),
                    fuse.compose(conv(own("1x1_kxk_conv2"), 0), first), conv(own("1x1") * scalars.numbers(self._centre())),
                    conv(separated, matrix.shape[3] + 1))
        return fuse.add(*(fuse.scale_after(branch, v) for branch, v in zip(branches, scalars.numbers(self.vector.value), strict=True)))


def _prior(channels: int, kernel: int) -> Any:
    """(channels, kernel, kernel): cos(pi * frequency * (row + 1/2) / kernel), frequencies in turn, half of them along the columns."""
    frequency, place = np.arange(channels) // 2 % kernel, (np.arange(kernel) + 0.5) / kernel
    waves = np.cos(np.pi * frequency[:, None] * place)
    along_rows = np.broadcast_to(waves[:, :, None], (channels, kernel, kernel))
    return np.where((np.arange(channels) % 2 == 0)[:, None, None], along_rows, along_rows.swapaxes(1, 2))


def orepa(in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, expand: int = 8,
          rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """An `OREPAConv` and its batch norm.

    >>> from npreparam.nn import fuse
    >>> fuse(orepa(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    return Sequential(conv=OREPAConv(in_channels, out_channels, kernel, stride=stride, groups=groups, expand=expand, rng=rng, dtype=dtype),
                      bn=BatchNorm2d(out_channels, dtype=dtype))


def orepa_1x1(in_channels: int, out_channels: int, *, stride: int = 1, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """bn(v0*conv1x1 x + v1*conv1x1(conv1x1 x)): OREPA's 1x1 form.

    Source: as `OREPAConv`; OREPA_1x1 in its code.

    >>> from npreparam.nn import fuse
    >>> fuse(orepa_1x1(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 1, 1)
    """
    own: dict[str, Any] = {"bias": False, "rng": rng, "dtype": dtype}
    return Sequential(
        Sum(origin=Sequential(Conv2d(in_channels, out_channels, 1, stride=stride, **own), vector=Scale(out_channels, value=0.5, dtype=dtype)),
            l2i=Sequential(conv1=Conv2d(in_channels, in_channels, 1, **own), conv2=Conv2d(in_channels, out_channels, 1, stride=stride, **own),
                           vector=Scale(out_channels, value=0.5, dtype=dtype))),
        bn=BatchNorm2d(out_channels, dtype=dtype))
