"""The generative re-parameterization and the terms of the evidence lower bound, correctly rounded.

When is a value rational? By the theorem of Lindemann and Weierstrass (see `activation`) exp(v) - 1 - v is so for v = 0 alone. Whether
log(2*pi*s) may be rational for a rational s, and what a sum over pixels and latents may be, no theorem tells. So those values are proved
correct whenever Ziv's loop ends, and where it did not, it would raise; for floats drawn at random it needs one round.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam.exact.elementary import LIMIT, exp_between, log_between, pi_between, smallness
from npreparam.exact.loss import bce_between, negated
from npreparam.exact.rounding import Array, as_fractions, checked, finish, result_dtype
from npreparam.exact.ziv import Bracket, Interval, round_reals


def normal_rsample(mu: Any, sigma: Any, eps: Any, out_dtype: Any = "same") -> Array:
    """A re-parameterized sample of N(mu, sigma^2): z = mu + sigma*eps with eps ~ N(0, 1).

    mu and sigma broadcast together to the shape of eps; float16, bfloat16, float32, float64 or Fractions. `out_dtype` defaults to the dtype
    of mu; None leaves rationals. sigma is a standard deviation.

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, section 2.4.

    >>> normal_rsample(np.array([1.0]), np.array([2.0]), np.array([-0.5]))
    array([0.])
    """
    exact_mu, exact_sigma = broadcast(mu=mu, sigma=sigma)
    noise = checked(as_fractions(eps, "eps"), "eps", exact_mu.shape)
    return finish(np.asarray(exact_mu + exact_sigma * noise, object), out_dtype, mu)


def normal_log_prob(x: Any, mu: Any, sigma: Any, out_dtype: Any = "same") -> Array:
    """Logarithm of the density of N(mu, sigma^2) at x: -((x - mu)/sigma)^2/2 - log(2*pi*sigma^2)/2, elementwise with broadcasting.

    Dtypes as in `normal_rsample`; `out_dtype` defaults to the dtype of x. sigma is a standard deviation.

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (sigma not positive; NaN or infinity).

    >>> normal_log_prob(np.zeros(1), np.zeros(1), np.ones(1))
    array([-0.91893853])
    """
    arguments = broadcast(x=x, mu=mu, sigma=sigma)
    check_positive(arguments[2])
    return each(normal_log_prob_between, arguments, result_dtype(out_dtype, x))


def gaussian_kl(mu: Any, logvar: Any, out_dtype: Any = "same") -> Array:
    """Kullback-Leibler divergence of N(mu, exp(logvar)) from N(0, 1): (exp(logvar) - 1 - logvar + mu^2)/2, elementwise with broadcasting.

    In nats. Dtypes as in `normal_rsample`; logvar is the logarithm of the *variance*.

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, appendix B.

    >>> gaussian_kl(np.array([1.0, 0.0]), np.array([0.0, 1e-8]))
    array([5.00000000e-01, 2.50000001e-17])
    """
    return each(gaussian_kl_between, broadcast(mu=mu, logvar=logvar), result_dtype(out_dtype, mu))


def bernoulli_log_prob(x: Any, logits: Any, out_dtype: Any = "same") -> Array:
    """Logarithm of the probability of x under a Bernoulli distribution with these logits a: x*a - log(1 + exp(a)), elementwise.

    Minus `bce_with_logits`. Dtypes as in `normal_rsample`, one shape for both; x usually lies in [0, 1].

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    >>> bernoulli_log_prob(np.ones(1), np.zeros(1))
    array([-0.69314718])
    """
    exact_x = as_fractions(x, "x")
    exact_logits = checked(as_fractions(logits, "logits"), "logits", exact_x.shape)
    return each(bernoulli_log_prob_between, (exact_x, exact_logits), result_dtype(out_dtype, x))


def elbo(x: Any, logits: Any, mu: Any, logvar: Any, out_dtype: Any = "same") -> Array:
    """The evidence lower bound of each sample: sum over pixels of log p(x|logits) - sum over latents of KL(N(mu, exp(logvar)) || N(0, 1)).

    x and logits are (N, pixels), mu and logvar (N, latent), dtypes as in `normal_rsample`; the result is (N,), in nats.

    Rounding: the whole sum once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, equation 10 and appendix C.

    >>> elbo(np.ones((1, 784)), np.zeros((1, 784)), np.zeros((1, 8)), np.zeros((1, 8)))    # -784 log(2)
    array([-543.42738956])
    """
    exact_x, exact_mu = as_fractions(x, "x"), as_fractions(mu, "mu")
    exact_logits = checked(as_fractions(logits, "logits"), "logits", exact_x.shape)
    exact_logvar = checked(as_fractions(logvar, "logvar"), "logvar", exact_mu.shape)
    if exact_x.ndim != 2 or exact_mu.ndim != 2 or len(exact_x) != len(exact_mu):
        raise ShapeError(f"`x` has shape {exact_x.shape} and `mu` {exact_mu.shape}, but they must be (N, pixels) and (N, latent)")
    brackets = (functools.partial(elbo_between, *rows) for rows in
                zip(*(a.tolist() for a in (exact_x, exact_logits, exact_mu, exact_logvar)), strict=True))
    return round_reals(brackets, exact_x.shape[:1], result_dtype(out_dtype, x))


def broadcast(**arrays: Any) -> tuple[Array, ...]:
    """The arguments as arrays of Fractions of one shape."""
    return together({name: as_fractions(array, name) for name, array in arrays.items()})


def together(arrays: dict[str, Array]) -> tuple[Array, ...]:
    """Arrays broadcast to one shape."""
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        shapes = ", ".join(f"`{name}` {array.shape}" for name, array in arrays.items())
        raise ShapeError(f"shapes of {shapes} do not broadcast together") from None


def check_positive(sigma: Array) -> None:
    """Raise where a standard deviation is none."""
    for value in sigma[sigma <= 0]:
        raise ArgumentError(f"`sigma` (={float(value)}) must be positive, a standard deviation")


def each(between: Callable[..., Interval], arguments: Sequence[Array], dtype: np.dtype[Any]) -> Array:
    """`between` at every element of arrays of one shape, rounded."""
    brackets: Iterator[Bracket] = (functools.partial(between, *values) for values in zip(*(a.ravel() for a in arguments), strict=True))
    return round_reals(brackets, arguments[0].shape, dtype)


def normal_log_prob_between(x: Fraction, mu: Fraction, sigma: Fraction, bits: int) -> Interval:
    """The logarithm increases with pi, so pi's ends give its ends."""
    square = ((x - mu) / sigma) ** 2
    low, high = (2 * pi * sigma**2 for pi in pi_between(bits))
    return (-square - log_between(high, bits)[1]) / 2, (-square - log_between(low, bits)[0]) / 2


def gaussian_kl_between(mu: Fraction, logvar: Fraction, bits: int) -> Interval:
    """Rational for logvar = 0; otherwise not below mu^2/2, since exp(v) > 1 + v, and with the bits that cancel when v is small.

    From `LIMIT` on it increases with logvar and overflows, so logvar may be cut there.
    """
    if logvar == 0:
        return (mu**2 / 2,) * 2
    logvar = min(logvar, Fraction(LIMIT))
    low, high = exp_between(logvar, bits + 2 * smallness(logvar))
    return (mu**2 + max(Fraction(0), low - 1 - logvar)) / 2, (mu**2 + high - 1 - logvar) / 2


def bernoulli_log_prob_between(x: Fraction, logit: Fraction, bits: int) -> Interval:
    """Minus the binary cross-entropy."""
    return negated(functools.partial(bce_between, logit, x))(bits)


def elbo_between(x: Sequence[Fraction], logits: Sequence[Fraction], mu: Sequence[Fraction], logvar: Sequence[Fraction], bits: int) -> Interval:
    """Sums of lower and of upper ends."""
    likelihood = [bernoulli_log_prob_between(t, a, bits) for t, a in zip(x, logits, strict=True)]
    divergence = [gaussian_kl_between(m, v, bits) for m, v in zip(mu, logvar, strict=True)]
    low = sum((ends[0] for ends in likelihood), Fraction(0)) - sum((ends[1] for ends in divergence), Fraction(0))
    high = sum((ends[1] for ends in likelihood), Fraction(0)) - sum((ends[0] for ends in divergence), Fraction(0))
    return low, high
