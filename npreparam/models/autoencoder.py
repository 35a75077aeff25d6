"""A plain autoencoder: the same networks as the VAE's, without noise and divergence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam.models.vae import VAE

Array = NDArray[Any]


class Autoencoder(VAE):
    """x -> code -> x, trained on log p(x|code) alone; codes have no law, so that `sample` decodes noise that was never trained on.

    Source: Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 313, 2006.

    >>> model = Autoencoder((1, 2, 2), hidden=4, latent=2, rng=np.random.default_rng(0))
    >>> model(np.full((3, 1, 2, 2), 0.5, np.float32), False).shape
    (3, 1, 2, 2)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.to_logvar

    def encode(self, x: Any, training: bool = False) -> tuple[Any, Any]:
        """The code, and a log variance of 0 that nothing depends on."""
        code = self.to_mu(self.features(x, training), training)
        return code, np.zeros(code.shape, code.dtype)

    def noise(self, count: int, rng: np.random.Generator) -> Array:
        """No noise."""
        return np.zeros((count, self.latent), self.to_mu.weight.dtype)

    def terms(self, x: Array, eps: Array, training: bool = False, kl: str = "analytic") -> tuple[Any, Any]:
        """log p(x|code), and a divergence of 0."""
        code, zero = self.encode(x, training)
        return self.log_likelihood(x, code, training), zero

    def elbo(self, x: Array, eps: Array, training: bool = False, kl: str = "analytic") -> Any:
        """log p(x|code)."""
        return self.terms(x, eps, training)[0]

    def log_weights(self, x: Array, eps: Array, training: bool = False) -> Any:
        """None exist."""
        raise ArgumentError("an Autoencoder has no distribution of codes and so no importance weights; use a VAE")
