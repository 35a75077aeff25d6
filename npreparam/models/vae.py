"""Variational autoencoders of small multilayer perceptrons, generic in image size: VAE, beta-VAE, IWAE."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import as_int
from npreparam.models.likelihoods import likelihood_of
from npreparam.nn import Linear, Module
from npreparam.ops.select import straight_through
from npreparam.prob.estimators import iwae_bound
from npreparam.tape.tensor import value_of

Array = NDArray[Any]
LARGEST_LOGVAR = 60.0  # exp(60) and its products with weights stay finite in float32
KL_FORMS = ("analytic", "sampled")
INIT = "fan_in_uniform"


class VAE(Module):
    """Encoder x -> (mu, log variance), decoder z -> logits of the pixels, prior N(0, 1).

    `likelihood` is "bernoulli" (for grey pixels a cross-entropy, and no density), "continuous_bernoulli" or "gaussian" (mean sigmoid(logits), and
    a log variance from the decoder). `beta` weights the divergence in what is trained, not in `elbo`.

    Weights and biases of linear layers begin uniform in +-1/sqrt(inputs) (`nn.fan_in_uniform`), as those of the published figures of small VAEs do;
    with He's wider normal weights the usual ten epochs on MNIST end about one nat higher.

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, appendix C; Higgins et al., beta-VAE, ICLR 2017.

    >>> model = VAE((1, 2, 2), hidden=4, latent=2, rng=np.random.default_rng(0))
    >>> x = np.full((3, 1, 2, 2), 0.5, np.float32)
    >>> log_likelihood, kl = model.terms(x, model.noise(3, np.random.default_rng(1)))
    >>> log_likelihood.shape, kl.shape
    ((3,), (3, 2))
    """

    def __init__(self, image: tuple[int, ...], hidden: int = 128, latent: int = 8, *, rng: np.random.Generator, dtype: DTypeLike = np.float32,
                 likelihood: str = "bernoulli", beta: float = 1.0) -> None:
        self.image, self.latent = tuple(image), as_int(latent, "latent", 1)
        self.pixels = math.prod(as_int(length, "image", 1) for length in self.image)
        self.likelihood, self.beta = likelihood, beta
        if not 0 <= beta < math.inf:
            raise ArgumentError(f"`beta` (={beta!r}) must be a finite number, not negative")
        needs_logvar = likelihood_of(likelihood).needs_logvar
        hidden = self._encoder(hidden, rng, dtype)
        self.to_mu = Linear(hidden, latent, rng=rng, dtype=dtype, init=INIT)
        self.to_logvar = Linear(hidden, latent, rng=rng, dtype=dtype, init=INIT)
        features = self._decoder(hidden, rng, dtype)
        self.to_logits = Linear(features, self.pixels, rng=rng, dtype=dtype, init=INIT)
        self.to_pixel_logvar = Linear(features, self.pixels, rng=rng, dtype=dtype, init=INIT) if needs_logvar else None

    def _encoder(self, hidden: int, rng: np.random.Generator, dtype: DTypeLike) -> int:
        """Make the encoder; returns the number of its features."""
        self.encoder: Module = Linear(self.pixels, hidden, rng=rng, dtype=dtype, init=INIT)
        return hidden

    def _decoder(self, hidden: int, rng: np.random.Generator, dtype: DTypeLike) -> int:
        """Make the decoder; returns the number of its features."""
        self.decoder: Module = Linear(self.latent, hidden, rng=rng, dtype=dtype, init=INIT)
        return hidden

    def features(self, x: Any, training: bool = False) -> Any:
        """What mu and log variance are linear in, (N, hidden)."""
        return ops.relu(self.encoder(ops.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), training))

    def encode(self, x: Any, training: bool = False) -> tuple[Any, Any]:
        """mu and log variance of q(z|x), (N, latent) each; the latter within +-60, so that sampler and divergence stay finite."""
        if tuple(x.shape[1:]) not in (self.image, (self.pixels,)):
            raise ShapeError(f"`x` has shape {tuple(x.shape)}, but must have shape (N, {', '.join(map(str, self.image))}): "
                             "images of the size that the model was made for")
        h = self.features(x, training)
        logvar = self.to_logvar(h, training)
        value = value_of(logvar)
        if np.abs(value).max(initial=0) > LARGEST_LOGVAR:  # the gradient still leads back
            logvar = straight_through(logvar, np.clip(value, -LARGEST_LOGVAR, LARGEST_LOGVAR))
        return self.to_mu(h, training), logvar

    def decoded(self, z: Any, training: bool = False) -> Any:
        """What the pixels' parameters are linear in, (N, features)."""
        return ops.relu(self.decoder(z, training))

    def decode(self, z: Any, training: bool = False) -> Any:
        """Logits of the pixels, (N, pixels)."""
        return self.to_logits(self.decoded(z, training), training)

    def means(self, z: Any, training: bool = False) -> Any:
        """Means of the pixels, in the images' shape."""
        return ops.reshape(likelihood_of(self.likelihood).mean(self.decode(z, training)), (z.shape[0], *self.image))

    def forward(self, x: Any, training: bool) -> Any:
        """Reconstruction from the mean of q(z|x), as pixel means in the images' shape; no ELBO is computed from it."""
        return self.means(self.encode(x, training)[0], training)

    def noise(self, count: int, rng: np.random.Generator) -> Array:
        """eps ~ N(0, 1) for `count` images."""
        return rng.standard_normal((count, self.latent)).astype(self.to_mu.weight.dtype)

    def log_likelihood(self, x: Any, z: Any, training: bool = False) -> Any:
        """log p(x|z) of each image, (N,): the sum over its pixels."""
        h = self.decoded(z, training)
        logvar = None if self.to_pixel_logvar is None else self.to_pixel_logvar(h, training)
        x = x.reshape(len(x), self.pixels)
        return ops.neg(ops.sum(likelihood_of(self.likelihood).loss(x, self.to_logits(h, training), logvar), axis=1))

    def terms(self, x: Array, eps: Array, training: bool = False, kl: str = "analytic") -> tuple[Any, Any]:
        """log p(x|z) of each image, (N,), and KL(q(z|x) || N(0, 1)) of each image and latent dimension, (N, latent), in nats.

        z = mu + exp(logvar/2)*eps. The divergence is analytic, or "sampled": log q(z|x) - log p(z) at that z, which may be negative.
        """
        if kl not in KL_FORMS:
            raise ArgumentError(f"`kl` (={kl!r}) must be one of {', '.join(KL_FORMS)}")
        mu, logvar = self.encode(x, training)
        sigma = ops.exp(ops.mul(logvar, 0.5))
        z = ops.normal_rsample(mu, sigma, eps)
        divergence = ops.gaussian_kl(mu, logvar) if kl == "analytic" else ops.sub(ops.normal_log_prob(z, mu, sigma), _log_prior(z))
        return self.log_likelihood(x, z, training), divergence

    def elbo(self, x: Array, eps: Array, training: bool = False, kl: str = "analytic") -> Any:
        """The evidence lower bound of each image in nats: sum over pixels of log p(x|z) - sum over latents of KL(q(z|x) || N(0, 1))."""
        log_likelihood, divergence = self.terms(x, eps, training, kl)
        return ops.sub(log_likelihood, ops.sum(divergence, axis=1))

    def objective(self, x: Array, eps: Array, training: bool = False) -> Any:
        """What training makes large, for each image: log p(x|z) - beta*KL."""
        if self.beta == 1:
            return self.elbo(x, eps, training)
        log_likelihood, divergence = self.terms(x, eps, training)
        return ops.sub(log_likelihood, ops.mul(ops.sum(divergence, axis=1), self.beta))

    def log_weights(self, x: Array, eps: Array, training: bool = False) -> Any:
        """log p(x, z) - log q(z|x) for each of K samples of each image, (K, N), for noise of shape (K, N, latent)."""
        shape = eps.shape
        if len(shape) != 3 or shape[1:] != (len(x), self.latent):
            raise ShapeError(f"`eps` has shape {shape}, but must have shape (K, {len(x)}, {self.latent})")
        mu, logvar = (ops.broadcast_to(v, shape) for v in self.encode(x, training))
        sigma = ops.exp(ops.mul(logvar, 0.5))
        z = ops.normal_rsample(mu, sigma, eps)
        flat = x.reshape(len(x), self.pixels)
        many = np.broadcast_to(flat, (shape[0], *flat.shape)).reshape(-1, self.pixels)
        log_likelihood = ops.reshape(self.log_likelihood(many, ops.reshape(z, (-1, self.latent)), training), shape[:2])
        return ops.add(log_likelihood, ops.sum(ops.sub(_log_prior(z), ops.normal_log_prob(z, mu, sigma)), axis=2))

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Pixel means of new images, decoded from the prior."""
        eps = rng.standard_normal((count, self.latent)).astype(self.to_mu.weight.dtype)
        return self.means(eps)


class IWAE(VAE):
    """The VAE trained on the importance-weighted bound log(1/K * sum of p(x, z_k)/q(z_k|x)) of K = `samples` samples.

    Source: Burda, Grosse and Salakhutdinov, Importance weighted autoencoders, arXiv 1509.00519.

    >>> model = IWAE((1, 2, 2), hidden=4, latent=2, samples=3, rng=np.random.default_rng(0))
    >>> x = np.full((5, 1, 2, 2), 0.5, np.float32)
    >>> model.bound(x, model.noise(5, np.random.default_rng(1))).shape
    (5,)
    """

    def __init__(self, image: tuple[int, ...], hidden: int = 128, latent: int = 8, *, samples: int = 5, rng: np.random.Generator,
                 dtype: DTypeLike = np.float32, likelihood: str = "bernoulli") -> None:
        super().__init__(image, hidden, latent, rng=rng, dtype=dtype, likelihood=likelihood)
        self.samples = as_int(samples, "samples", 1)

    def noise(self, count: int, rng: np.random.Generator) -> Array:
        """eps ~ N(0, 1) for `samples` samples of `count` images."""
        return rng.standard_normal((self.samples, count, self.latent)).astype(self.to_mu.weight.dtype)

    def bound(self, x: Array, eps: Array, training: bool = False) -> Any:
        """The importance-weighted bound of each image in nats, (N,); not below the ELBO on average, and rising with K."""
        return iwae_bound(self.log_weights(x, eps, training), axis=0)

    def objective(self, x: Array, eps: Array, training: bool = False) -> Any:
        """The bound."""
        return self.bound(x, eps, training)


def _log_prior(z: Any) -> Any:
    zero = np.zeros((), z.dtype)
    return ops.normal_log_prob(z, zero, zero + z.dtype.type(1))
