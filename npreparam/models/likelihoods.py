"""What a decoder's outputs say about pixels: log p(x|z) of each image, and the pixels' means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.ops.continuous_bernoulli import continuous_bernoulli_cumulant


class Likelihood(NamedTuple):
    """`loss(x, logits, logvar)`, -log p(x|z) of each pixel, `mean(logits)`, and whether the decoder must give a log variance."""

    loss: Callable[[Any, Any, Any], Any]
    mean: Callable[[Any], Any]
    needs_logvar: bool = False


def _bernoulli(x: Any, logits: Any, logvar: Any) -> Any:
    """-x*log(p) - (1-x)*log(1-p); for grey pixels a cross-entropy whose minimum is H(x), not 0, and no density."""
    return ops.bce_with_logits(logits, x)


def _continuous_bernoulli(x: Any, logits: Any, logvar: Any) -> Any:
    """A(l) - l*x: the same with the normalizing constant that makes it a density on [0, 1]."""
    return ops.sub(continuous_bernoulli_cumulant(0, logits), ops.mul(logits, x))


def _gaussian(x: Any, logits: Any, logvar: Any) -> Any:
    """Density of N(sigmoid(logits), exp(logvar)), as in Kingma and Welling, arXiv 1312.6114, appendix C.2."""
    return ops.neg(ops.normal_log_prob(x, ops.sigmoid(logits), ops.exp(ops.mul(logvar, 0.5))))


LIKELIHOODS = {
    "bernoulli": Likelihood(_bernoulli, ops.sigmoid),
    "continuous_bernoulli": Likelihood(_continuous_bernoulli, lambda logits: continuous_bernoulli_cumulant(1, logits)),
    "gaussian": Likelihood(_gaussian, ops.sigmoid, needs_logvar=True),
}


def likelihood_of(name: str) -> Likelihood:
    """The row of a name, or ArgumentError."""
    if name not in LIKELIHOODS:
        raise ArgumentError(f"`likelihood` (={name!r}) must be one of {', '.join(LIKELIHOODS)}")
    return LIKELIHOODS[name]
