"""What a trained VAE is judged by: the ELBO and its terms, the log-likelihood by importance sampling, active units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam._shapes import as_int
from npreparam.models.vae import VAE

Array = NDArray[Any]
ACTIVE = 0.01  # variance of mu over the data above which a latent dimension is called active
ROWS = 2000  # of the decoder at once


class Evaluation(NamedTuple):
    """ELBO terms of every image, with a sample z for each: nothing is summed or averaged over images.

    >>> found = Evaluation(np.array([-3.0, -4.0]), np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [-1.0, 0.0]]))
    >>> found.loss, found.active
    (array([4., 6.]), array([ True, False]))
    """

    log_likelihood: Array  # (N,), log p(x|z)
    kl: Array  # (N, latent)
    mu: Array  # (N, latent)

    @property
    def loss(self) -> Array:
        """Negative ELBO of each image, (N,)."""
        return self.kl.sum(1) - self.log_likelihood

    @property
    def active(self) -> Array:
        """Whether each latent dimension is used: the variance of its mu over the data exceeds 0.01 (Burda et al., section 5.3)."""
        return self.mu.var(0) > ACTIVE


def evaluate(model: VAE, images: Array, rng: np.random.Generator, batch: int = 512) -> Evaluation:
    """The ELBO's terms of all images, in float64, with z = mu + sigma*eps: at z = mu they would be no bound.

    Raises ArgumentError for no images.

    >>> model = VAE((1, 2, 2), hidden=4, latent=3, rng=np.random.default_rng(0))
    >>> evaluate(model, np.full((5, 1, 2, 2), 0.5, np.float32), np.random.default_rng(1)).kl.shape
    (5, 3)
    """
    if not len(images):
        raise ArgumentError("`images` is empty; there is nothing to evaluate")
    batch, parts = as_int(batch, "batch", 1), []
    for i in range(0, len(images), batch):
        x = images[i : i + batch]
        eps = rng.standard_normal((len(x), model.latent)).astype(x.dtype)
        parts.append((*model.terms(x, eps), model.encode(x)[0]))
    return Evaluation(*(np.concatenate([part[i] for part in parts]).astype(np.float64) for i in range(3)))


class LogLikelihood(NamedTuple):
    """Estimates of log p(x) for each image, and their mean with the standard error over the images.

    >>> found = LogLikelihood(np.array([-1.0, -3.0]))
    >>> found.mean, found.standard_error
    (-2.0, 1.0)
    """

    per_image: Array

    @property
    def mean(self) -> float:
        """Mean over the images; minus this is the NLL."""
        return float(self.per_image.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, as of independent images."""
        return float(self.per_image.std(ddof=1) / math.sqrt(len(self.per_image)))


def log_likelihood(model: VAE, images: Array, rng: np.random.Generator, samples: int = 5000,
                   progress: Callable[[int, int], None] | None = None) -> LogLikelihood:
    """log(1/K * sum of p(x, z_k)/q(z_k|x)) of each image with K = `samples`: on average below log p(x), and nearer the larger K is.

    Streamed: a few samples of a few images at a time, and a running sum of weights in float64.

    Source: Burda, Grosse and Salakhutdinov, Importance weighted autoencoders, arXiv 1509.00519, section 5.

    >>> model = VAE((1, 2, 2), hidden=4, latent=3, rng=np.random.default_rng(0))
    >>> log_likelihood(model, np.full((5, 1, 2, 2), 0.5, np.float32), np.random.default_rng(1), samples=10).per_image.shape
    (5,)
    """
    samples = as_int(samples, "samples", 1)
    if not len(images):
        raise ArgumentError("`images` is empty; there is nothing to evaluate")
    at_once = min(samples, ROWS)
    count, found = max(1, ROWS // at_once), []
    for i in range(0, len(images), count):
        x = images[i : i + count]
        total = np.full(len(x), -np.inf)
        for first in range(0, samples, at_once):
            k = min(at_once, samples - first)
            log_weights = model.log_weights(x, rng.standard_normal((k, len(x), model.latent)).astype(x.dtype)).astype(np.float64)
            total = np.logaddexp(total, np.logaddexp.reduce(log_weights, axis=0))
        found.append(total - math.log(samples))
        if progress is not None:
            progress(min(i + count, len(images)), len(images))
    return LogLikelihood(np.concatenate(found))
