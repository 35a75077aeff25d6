"""A variational autoencoder of two small multilayer perceptrons, generic in image size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npreparam import ops
from npreparam._shapes import as_int
from npreparam.nn import Linear, Module

Array = NDArray[Any]


class VAE(Module):
    """Encoder x -> (mu, log variance), decoder z -> logits of Bernoulli pixels, prior N(0, 1).

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, appendix C.
    """

    def __init__(self, image: tuple[int, ...], hidden: int = 128, latent: int = 8, *, rng: np.random.Generator,
                 dtype: DTypeLike = np.float32) -> None:
        self.image, self.latent = tuple(image), as_int(latent, "latent", 1)
        self.pixels = pixels = math.prod(as_int(length, "image", 1) for length in self.image)
        self.encoder = Linear(pixels, hidden, rng=rng, dtype=dtype)
        self.to_mu = Linear(hidden, latent, rng=rng, dtype=dtype)
        self.to_logvar = Linear(hidden, latent, rng=rng, dtype=dtype)
        self.to_logvar.update({"weight": np.zeros((latent, hidden), dtype)})  # begin with sigma = 1 rather than at random
        self.decoder = Linear(latent, hidden, rng=rng, dtype=dtype)
        self.to_logits = Linear(hidden, pixels, rng=rng, dtype=dtype)

    def encode(self, x: Any, training: bool = False) -> tuple[Any, Any]:
        """mu and log variance of q(z|x), (N, latent) each."""
        h = ops.relu(self.encoder(ops.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), training))
        return self.to_mu(h, training), self.to_logvar(h, training)

    def decode(self, z: Any, training: bool = False) -> Any:
        """Logits of the pixels, (N, pixels)."""
        return self.to_logits(ops.relu(self.decoder(z, training)), training)

    def forward(self, x: Any, training: bool) -> Any:
        """Reconstruction from the mean of q(z|x), as probabilities in the images' shape."""
        return ops.reshape(ops.sigmoid(self.decode(self.encode(x, training)[0], training)), x.shape)

    def noise(self, count: int, rng: np.random.Generator) -> Array:
        """eps ~ N(0, 1) for `count` images."""
        return rng.standard_normal((count, self.latent)).astype(self.decoder.weight.dtype)

    def elbo(self, x: Array, eps: Array, training: bool = False) -> Any:
        """The evidence lower bound of each image in nats, with the re-parameterized sample z = mu + exp(logvar/2)*eps.

        ELBO = sum over pixels of log p(x|z) - sum over latents of KL(q(z|x) || N(0, 1))
        """
        mu, logvar = self.encode(x, training)
        z = ops.normal_rsample(mu, ops.exp(ops.mul(logvar, 0.5)), eps)
        log_likelihood = ops.neg(ops.sum(ops.bce_with_logits(self.decode(z, training), x.reshape(len(x), self.pixels)), axis=1))
        return ops.sub(log_likelihood, ops.sum(ops.gaussian_kl(mu, logvar), axis=1))

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Pixel probabilities of new images, decoded from the prior."""
        return ops.sigmoid(self.decode(self.noise(count, rng))).reshape(count, *self.image)
