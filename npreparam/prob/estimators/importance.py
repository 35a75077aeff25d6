"""Bounds on log p(x) by importance weights, and gradients of them with respect to the parameters of q.

log w = log p(x, z) - log q(z; theta), z ~ q        ELBO = E[log w] <= E[log of the mean of k weights] <= log p(x)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ShapeError
from npreparam._shapes import as_int
from npreparam.ops.shape import axes_of
from npreparam.prob._distribution import Array, Random
from npreparam.prob._parameters import Parameter
from npreparam.prob.estimators._rows import Family, Gradients, Objective, Rows, joint_log_prob, objective
from npreparam.tape.tensor import value_of


def iwae_bound(log_weights: Any, axis: int = -1) -> Parameter:
    """The importance-weighted bound: the logarithm of the mean (not the mean of the logarithms) of the weights along one axis.

    L_k = log((w_1 + ... + w_k)/k), from log w; k = 1 is the ELBO's sample

    A Tensor or an array of log-weights; -inf is a weight of 0. Rounding: the largest is taken out, so nothing overflows; a few ulp of the largest
    log-weight and k*u.

    Raises ShapeError for no weights, ArgumentError for an axis out of range.

    Source: Burda, Grosse and Salakhutdinov, Importance weighted autoencoders, arXiv 1509.00519, equation 8.

    >>> iwae_bound(np.log(np.array([[1.0, 3.0], [4.0, 0.5]])))    # log 2, log 2.25
    array([0.69314718, 0.81093022])
    """
    values = np.asarray(value_of(log_weights))
    (along,) = axes_of(as_int(axis, "axis", -values.ndim), values.ndim)
    if values.shape[along] == 0:
        raise ShapeError(f"`log_weights` has shape {values.shape}, but must have at least one weight along axis {axis}")
    top = values.max(along, keepdims=True)
    top = np.where(np.isfinite(top), top, 0).astype(values.dtype)
    return ops.add(ops.log(ops.mean(ops.exp(ops.sub(log_weights, top)), axis=along)), top.squeeze(along))


def iwae_pathwise(log_joint: Objective, family: Family, parameters: Mapping[str, Any], samples: int | None = None, *, k: int = 1,
                  rng: Random | None = None, eps: Any = None) -> Gradients:
    """The re-parameterized gradient of the importance-weighted bound of k draws; for k = 1, of the ELBO.

    g_s = d/dtheta log((w_1 + ... + w_k)/k), through the samples and through the density q

    `log_joint` maps z (R, ...) to log p(x, z), (R,), where R = S*k. `eps` has shape (S, k, *noise shape of the distribution). Unbiased.

    Raises ArgumentError for a distribution without re-parameterized samples, ShapeError, DTypeError.

    >>> from npreparam.prob import Normal
    >>> iwae_pathwise(Normal().log_prob, Normal, {"loc": 0.5, "scale": 1.0}, eps=np.array([[0.0], [1.0]]))["loc"]
    array([-0.5, -1.5])
    """
    rows = Rows(family, parameters, samples, rng, eps, draws=as_int(k, "k", 1))
    z = rows.rows.rsample(eps=rows.eps)
    log_w = ops.sub(objective(log_joint, z, "log_joint"), joint_log_prob(rows.rows, z))
    return rows.gradients(iwae_bound(ops.reshape(log_w, (rows.samples, k))))


def dreg(log_joint: Objective, family: Family, parameters: Mapping[str, Any], samples: int | None = None, *, k: int = 1,
         rng: Random | None = None, eps: Any = None) -> Gradients:
    """The doubly re-parameterized gradient of the importance-weighted bound of k draws.

    g_s = sum over i of v_i^2 * (d log w_i/dz_i) * dz_i/dtheta, v_i = w_i/(w_1 + ... + w_k), the density's own parameters held still

    Unbiased for the same gradient as `iwae_pathwise`, and 0 where q is the posterior; its variance is lower near there, but may be higher far
    from it. For the parameters of q alone: those of p take the ordinary gradient of `iwae_bound`. Arguments as `iwae_pathwise`.

    Raises ArgumentError for a distribution without re-parameterized samples, ShapeError, DTypeError.

    Source: Tucker, Lawson, Gu and Maddison, Doubly reparameterized gradient estimators, arXiv 1810.04152, equation 8.

    >>> from npreparam.prob import Normal
    >>> dreg(Normal().log_prob, Normal, {"loc": 0.0, "scale": 1.0}, samples=2, k=3, rng=0)["loc"]
    array([0., 0.])
    """
    rows = Rows(family, parameters, samples, rng, eps, draws=as_int(k, "k", 1))
    z = rows.rows.rsample(eps=rows.eps)
    log_w = ops.sub(objective(log_joint, z, "log_joint"), joint_log_prob(rows.stopped(family), z))
    return rows.gradients(ops.mul(log_w, ops.square(_shares(value_of(log_w), k))))


def _shares(log_w: Array, k: int) -> Array:
    """Each weight's share of the sum of its sample's k weights, (S*k,)."""
    return ops.softmax(log_w.reshape(-1, k)).reshape(-1)


def sticking_the_landing(log_joint: Objective, family: Family, parameters: Mapping[str, Any], samples: int | None = None, *,
                         rng: Random | None = None, eps: Any = None) -> Gradients:
    """The gradient of the ELBO along the path of the sample alone, the density's own parameters held still.

    g_s = (d/dz (log p(x, z) - log q(z; theta held still))) * dz/dtheta

    What is left out, the score d log q(z; theta)/dtheta, has mean 0, so the estimate is unbiased; where q is the posterior it is 0 for every
    sample, while the full gradient still varies. It is `dreg` of one draw; `eps` has shape (S, *noise shape of the distribution).

    Raises ArgumentError for a distribution without re-parameterized samples, ShapeError, DTypeError.

    Source: Roeder, Wu and Duvenaud, Sticking the landing, arXiv 1703.09194.

    >>> from npreparam.prob import Normal
    >>> sticking_the_landing(Normal().log_prob, Normal, {"loc": 0.5, "scale": 1.0}, eps=np.array([0.0, 1.0]))["loc"]
    array([-0.5, -0.5])
    """
    rows = Rows(family, parameters, samples, rng, eps)
    z = rows.rows.rsample(eps=rows.eps)
    return rows.gradients(ops.sub(objective(log_joint, z, "log_joint"), joint_log_prob(rows.stopped(family), z)))
