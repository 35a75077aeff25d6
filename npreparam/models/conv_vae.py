"""A convolutional VAE whose encoder is made of RepVGG blocks, to be fused after the training."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.models.vae import VAE
from npreparam.nn import ConvTranspose2d, Linear, RepVGGBlock, Sequential, fuse


class ConvVAE(VAE):
    """Encoder: RepVGG blocks that halve the image, one for each of `widths`; decoder: a linear layer and as many transposed convolutions.

    >>> model = ConvVAE((1, 8, 8), latent=2, rng=np.random.default_rng(0))
    >>> x = np.random.default_rng(1).random((2, 1, 8, 8)).astype(np.float32)
    >>> bool(np.abs(model(x) - model.fuse()(x)).max() < 1e-4)
    True
    """

    def __init__(self, image: tuple[int, ...], latent: int = 8, widths: Sequence[int] = (16, 32), *, rng: np.random.Generator,
                 dtype: DTypeLike = np.float32, likelihood: str = "bernoulli", beta: float = 1.0) -> None:
        if len(image) != 3 or not widths:
            raise ArgumentError(f"`image` (={tuple(image)!r}) must be (channels, height, width), and `widths` (={tuple(widths)!r}) not be empty")
        self.widths = tuple(widths)
        super().__init__(image, 1, latent, rng=rng, dtype=dtype, likelihood=likelihood, beta=beta)

    def _sizes(self) -> list[tuple[int, int]]:
        """Height and width before each block, and after the last."""
        sizes = [self.image[1:]]
        for _ in self.widths:
            sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
        return sizes  # type: ignore[return-value]

    def _encoder(self, hidden: int, rng: np.random.Generator, dtype: DTypeLike) -> int:
        channels = (self.image[0], *self.widths)
        blocks = [RepVGGBlock(a, b, stride=2, rng=rng, dtype=dtype) for a, b in pairwise(channels)]
        self.encoder = Sequential(*blocks)
        return self.widths[-1] * math.prod(self._sizes()[-1])

    def _decoder(self, hidden: int, rng: np.random.Generator, dtype: DTypeLike) -> int:
        self.decoder = Linear(self.latent, hidden, rng=rng, dtype=dtype)
        channels, sizes = (*self.widths[::-1], self.widths[0]), self._sizes()[::-1]
        layers = []
        for (a, b), (height, width) in zip(pairwise(channels), sizes[1:], strict=True):
            layers.append(ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=(1 - height % 2, 1 - width % 2), rng=rng, dtype=dtype))
        self.upsampling = Sequential(*layers)
        return self.widths[0] * math.prod(self.image[1:])

    def features(self, x: Any, training: bool = False) -> Any:
        """The last block's output, flat."""
        maps = self.encoder(ops.reshape(x, (x.shape[0], *self.image)), training)
        return ops.reshape(maps, (x.shape[0], math.prod(maps.shape[1:])))

    def decoded(self, z: Any, training: bool = False) -> Any:
        """The last transposed convolution's output, flat."""
        maps = ops.reshape(ops.relu(self.decoder(z, training)), (z.shape[0], self.widths[-1], *self._sizes()[-1]))
        for layer in self.upsampling:
            maps = ops.relu(layer(maps, training))
        return ops.reshape(maps, (z.shape[0], math.prod(maps.shape[1:])))

    def fuse(self) -> Self:
        """A copy whose encoder is plain convolutions with ReLU: the same function in evaluation. Nothing that is done to it changes this model."""
        twin = copy.deepcopy(self)
        twin.encoder = fuse(twin.encoder)
        return twin
