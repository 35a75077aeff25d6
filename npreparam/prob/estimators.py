"""Estimators of the gradient of E[f(z)], z ~ q(parameters): one signature, and one gradient for each sample, so that the variance can be seen.

    estimator(objective, family, parameters, eps) -> {name: gradients of shape (samples, *shape of the parameter)}

`objective` maps samples z (samples, *shape of one) to values (samples,), with functions of `npreparam.ops`; `family` makes a distribution of
parameters given by name, as `prob.Normal` does; `parameters` are arrays or numbers by name; `eps` is the family's noise, samples first. Every
sample has its own copy of the parameters on the tape, so that one backward pass gives all gradients apart. The mean over the samples is the
estimate, the variance over them its variance for one sample.

Source: Mohamed, Rosca, Figurnov and Mnih, Monte Carlo gradient estimation in machine learning, JMLR 21(132), 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam.ops.select import straight_through as through
from npreparam.prob._distribution import Distribution, Random, as_generator
from npreparam.prob.location_scale import Normal
from npreparam.tape import Tensor, grad
from npreparam.tape.tensor import value_of

Array = NDArray[Any]
Objective = Callable[[Any], Any]
Family = Callable[..., Distribution]
Parameters = Mapping[str, Any]
Gradients = dict[str, Array]
Baseline = None | float | str | Mapping[str, Any]


def pathwise(objective: Objective, family: Family, parameters: Parameters, eps: Any) -> Gradients:
    """The re-parameterized gradient: df/dz * dz/dparameter at z = g(parameter, eps).

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, section 2.4.

    >>> eps = np.array([0.5, -1.0])
    >>> pathwise(lambda z: ops.square(z), Normal, {"loc": 1.0, "scale": 2.0}, eps)["loc"]    # 2z
    array([ 4., -2.])
    """
    own = _copies(parameters, eps)
    return _each(_values(objective, family(**own).rsample(eps=eps)), own)


def plain_sample(objective: Objective, family: Family, parameters: Parameters, eps: Any) -> Gradients:
    """What a sample drawn as a number gives: nothing. It is here to show the error.

    Raises UnusedInputError: no path leads from the sample back to the parameters.
    """
    own = _copies(parameters, eps)
    return _each(_values(objective, Tensor(family(**own).sample(eps=eps))), own)


def score_function(objective: Objective, family: Family, parameters: Parameters, eps: Any, baseline: Baseline = None) -> Gradients:
    """The likelihood ratio (REINFORCE): (f(z) - b) * dlog q(z)/dparameter; f need not be differentiable.

    The baseline b is none, a number, one number for each parameter element by name (`optimal_baseline`), or "leave_one_out": for each sample the
    mean of f over the others, which keeps the mean unbiased, though samples are then no longer independent.

    Raises ArgumentError for another baseline, or a single sample with "leave_one_out".

    Source: Williams, Machine Learning 8, 1992; Kool, van Hoof and Welling, Buy 4 REINFORCE samples, get a baseline for free!, 2019.

    >>> score_function(lambda z: z, Normal, {"loc": 1.0, "scale": 2.0}, np.array([0.5]))["loc"]    # f(z) = 2, score eps/scale
    array([0.5])
    """
    own = _copies(parameters, eps)
    values, scores = _score(objective, family, own, eps)
    return {name: (_aligned(values, score) - _baseline(baseline, values, name, score)) * score for name, score in scores.items()}


def optimal_baseline(objective: Objective, family: Family, parameters: Parameters, eps: Any) -> Gradients:
    """The constants b = E[f*s^2]/E[s^2] of least variance, s the score, one for each parameter element, averaged over `eps`.

    Use other noise than for the gradient itself, or the estimate is biased.

    Source: Weaver and Tao, The optimal reward baseline for gradient-based reinforcement learning, UAI 2001.
    """
    values, scores = _score(objective, family, _copies(parameters, eps), eps)
    return {name: (_aligned(values, s) * s**2).mean(0) / (s**2).mean(0) for name, s in scores.items()}


class MeasureNoise(NamedTuple):
    """Noise of `measure_valued`, each of shape (samples, *shape of one): Rayleigh, double-sided Maxwell, uniform, and standard normal."""

    rayleigh: Array
    maxwell: Array
    uniform: Array
    normal: Array


def measure_noise(shape: tuple[int, ...], rng: Random) -> MeasureNoise:
    """Noise for `measure_valued`."""
    rng = as_generator(rng)
    maxwell = np.sqrt((rng.standard_normal((3, *shape)) ** 2).sum(0)) * rng.choice([-1.0, 1.0], shape)
    return MeasureNoise(rng.rayleigh(size=shape), maxwell, rng.random(shape), rng.standard_normal(shape))


def measure_valued(objective: Objective, family: Family, parameters: Parameters, eps: MeasureNoise) -> Gradients:
    """The weak derivative of a normal density as a difference of two densities, with coupled samples:

        d/dloc:   (f(loc + scale*W) - f(loc - scale*W)) / (scale*sqrt(2 pi)),   W Rayleigh
        d/dscale: (f(loc + scale*M) - f(loc + scale*M*U)) / scale,   M double-sided Maxwell, U uniform, so that M*U is normal

    f need not be differentiable; each coordinate takes four evaluations, the others keep their normal noise.

    Raises ArgumentError for another family than Normal.

    Source: Pflug, 1989; Mohamed et al., JMLR 2020, section 6, tables 1 and 4.
    """
    if family is not Normal:
        raise ArgumentError(f"`family` (={getattr(family, '__name__', family)!r}) must be Normal, whose weak derivative is known here; "
                            "use score_function")
    own = {name: copies.value for name, copies in _copies(parameters, eps.normal).items()}
    loc, scale = own["loc"], own["scale"]
    out = {"loc": np.zeros_like(loc), "scale": np.zeros_like(scale)}
    for at in np.ndindex(loc.shape[1:]):
        here = (slice(None), *at)

        def f(noise: Array, here: Any = here) -> Array:
            z = loc + scale * eps.normal
            z[here] = loc[here] + scale[here] * noise
            return np.asarray(value_of(_values(objective, z)))

        w, m, u = eps.rayleigh[here], eps.maxwell[here], eps.uniform[here]
        out["loc"][here] = (f(w) - f(-w)) / (scale[here] * math.sqrt(2 * math.pi))
        out["scale"][here] = (f(m) - f(m * u)) / scale[here]
    return out


def straight_through(objective: Objective, family: Family, parameters: Parameters, eps: Any) -> Gradients:
    """f at the discrete sample, differentiated as if the sample were the distribution's mean: of little variance, and biased unless f is linear.

    Source: Bengio, Léonard and Courville, arXiv 1308.3432.
    """
    own = _copies(parameters, eps)
    q = family(**own)
    return _each(_values(objective, through(q.mean, q.sample(eps=eps))), own)


def elbo(log_joint: Objective, family: Family, parameters: Parameters, eps: Any) -> Gradients:
    """Pathwise gradient of log p(z) - log q(z), with q's parameters inside log q differentiated too (the total derivative)."""
    own = _copies(parameters, eps)
    return _each(_log_weight(log_joint, family(**own), family(**own).rsample(eps=eps)), own)


def sticking_the_landing(log_joint: Objective, family: Family, parameters: Parameters, eps: Any) -> Gradients:
    """Pathwise gradient of log p(z) - log q(z) without the score of q, whose mean is 0: zero for every sample where q is the posterior.

    Source: Roeder, Wu and Duvenaud, Sticking the landing, arXiv 1703.09194.
    """
    own = _copies(parameters, eps)
    still = family(**{name: copies.value for name, copies in own.items()})
    return _each(_log_weight(log_joint, still, family(**own).rsample(eps=eps)), own)


def iwae(log_joint: Objective, family: Family, parameters: Parameters, eps: Any) -> Gradients:
    """Gradient of the bound log(1/K * sum of w_k), w = p(z)/q(z); `eps` is (K, samples, ...), `log_joint` maps (K, samples, ...) to (K, samples).

    Source: Burda, Grosse and Salakhutdinov, Importance weighted autoencoders, arXiv 1509.00519.
    """
    own = _copies(parameters, np.asarray(eps)[0])
    q = family(**own)
    return _each(log_mean_exp(_log_weight(log_joint, q, q.rsample(eps=eps))), own)


def dreg(log_joint: Objective, family: Family, parameters: Parameters, eps: Any) -> Gradients:
    """The doubly re-parameterized gradient of the same bound: sum of v_k^2 * dlog w_k/dz * dz/dparameter, v = w/(sum of w).

    Unbiased everywhere; of smaller variance than `iwae` near the optimum, not far from it.

    Source: Tucker, Lawson, Gu and Maddison, Doubly reparameterized gradient estimators for Monte Carlo objectives, arXiv 1810.04152.
    """
    own = _copies(parameters, np.asarray(eps)[0])
    still = family(**{name: copies.value for name, copies in own.items()})
    log_weights = _log_weight(log_joint, still, family(**own).rsample(eps=eps))
    shares = ops.softmax(value_of(log_weights), axis=0)
    return _each(ops.sum(ops.mul(log_weights, shares**2), axis=0), own)


def log_mean_exp(log_weights: Any) -> Any:
    """log(1/K * sum of exp) over the first axis: the importance-weighted bound of K log-weights."""
    return ops.sub(ops.logsumexp(log_weights, axis=0), math.log(log_weights.shape[0]))


def shared_weights(objective: Objective, x: Array, parameters: Parameters, eps: Array) -> Gradients:
    """Gradients for each row of x through a linear layer of normal weights, with one draw for all rows: y = x (loc + scale*eps)^T.

    `parameters` loc and scale are (outputs, inputs) as `eps`; `objective` maps y (rows, outputs) to (rows,). Rows share noise, so their gradients
    are correlated, and averaging over a minibatch does not make the variance vanish.
    """
    loc, scale = _weights(parameters, eps)
    values = [_values(objective, ops.linear(row[None], ops.normal_rsample(loc, scale, eps))) for row in x]
    apart = [grad(ops.sum(value), {"loc": loc, "scale": scale}) for value in values]
    return {name: np.stack([g[name] for g in apart]) for name in ("loc", "scale")}


def local_reparameterization(objective: Objective, x: Array, parameters: Parameters, eps: Array) -> Gradients:
    """The same layer with noise for each row's outputs: y = x loc^T + sqrt(x^2 (scale^2)^T) * eps, `eps` (rows, outputs).

    The outputs have the same law as with `shared_weights`, and rows are independent.

    Source: Kingma, Salimans and Welling, Variational dropout and the local reparameterization trick, arXiv 1506.02557, section 2.2.
    """
    loc, scale = _weights(parameters)
    apart = [grad(ops.sum(_values(objective, local_linear(row[None], loc, scale, noise[None]))), {"loc": loc, "scale": scale})
             for row, noise in zip(x, eps, strict=True)]
    return {name: np.stack([g[name] for g in apart]) for name in ("loc", "scale")}


def local_linear(x: Any, loc: Any, scale: Any, eps: Any) -> Any:
    """A linear layer of independent normal weights, sampled at its outputs: x loc^T + sqrt(x^2 (scale^2)^T) * eps."""
    return ops.normal_rsample(ops.linear(x, loc), ops.sqrt(ops.linear(ops.square(x), ops.square(scale))), eps)


def _weights(parameters: Parameters, eps: Array | None = None) -> tuple[Tensor, Tensor]:
    loc, scale = (Tensor(np.asarray(parameters[name]), name) for name in ("loc", "scale"))
    if eps is not None and np.shape(eps) != loc.shape:
        raise ShapeError(f"`eps` has shape {np.shape(eps)}, but must have shape {loc.shape}: one number for each weight")
    return loc, scale


def _copies(parameters: Parameters, eps: Any) -> dict[str, Tensor]:
    """A leaf for each parameter, with a copy of it for each sample."""
    eps = np.asarray(eps)
    if not eps.ndim or not len(eps):
        raise ShapeError(f"`eps` has shape {eps.shape}, but must have at least one sample along its first axis")
    return {name: Tensor(np.repeat(np.asarray(value, eps.dtype)[None], len(eps), 0), name) for name, value in parameters.items()}


def _values(objective: Objective, z: Any) -> Any:
    values = objective(z)
    if tuple(np.shape(value_of(values))) != z.shape[:1]:
        raise ShapeError(f"`objective` returned shape {np.shape(value_of(values))}, but must return {z.shape[:1]}: one value for each sample")
    return values


def _each(values: Any, own: dict[str, Tensor]) -> Gradients:
    """The gradients of every sample's value with respect to its own copies."""
    return grad(ops.sum(values), own)


def _log_weight(log_joint: Objective, q: Distribution, z: Any) -> Any:
    """log p(z) - log q(z), the latter summed over all but the axes that `log_joint` keeps."""
    joint, density = log_joint(z), q.log_prob(z)
    rank = len(joint.shape)
    return ops.sub(joint, ops.sum(density, tuple(range(rank, len(density.shape)))) if len(density.shape) > rank else density)


def _score(objective: Objective, family: Family, own: dict[str, Tensor], eps: Any) -> tuple[Array, Gradients]:
    q = family(**own)
    z = q.sample(eps=eps)
    return np.asarray(value_of(_values(objective, z))), _each(q.log_prob(z), own)


def _aligned(values: Array, like: Array) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _baseline(baseline: Baseline, values: Array, name: str, like: Array) -> Any:
    if isinstance(baseline, Mapping):
        return baseline[name]
    if isinstance(baseline, str):
        if baseline != "leave_one_out" or len(values) < 2:
            raise ArgumentError(f"`baseline` (={baseline!r}, {len(values)} samples) must be a number, numbers by name, or 'leave_one_out' "
                                "of two samples or more")
        return _aligned((values.sum() - values) / (len(values) - 1), like)
    return 0.0 if baseline is None else baseline
