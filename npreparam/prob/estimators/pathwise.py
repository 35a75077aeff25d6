"""Gradients through the sample itself: exact where the sample is differentiable, straight through where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.ops.select import straight_through as pass_through
from npreparam.prob._distribution import Random
from npreparam.prob.discrete import Bernoulli, Categorical
from npreparam.prob.estimators._rows import Family, Gradients, Objective, Rows, objective


def pathwise(f: Objective, family: Family, parameters: Mapping[str, Any], samples: int | None = None, *, rng: Random | None = None,
             eps: Any = None) -> Gradients:
    """The re-parameterized gradient, through the sample.

    g_s = f'(z_s) * dz_s/dtheta, z_s = z(theta, eps_s)

    Unbiased for a differentiable f. See `npreparam.prob.estimators` for the arguments; `eps` has shape (S, *noise shape of the distribution).

    Raises ArgumentError for a distribution without re-parameterized samples, UnusedInputError where `f` cuts the tape, ShapeError, DTypeError.

    Source: Kingma and Welling, arXiv 1312.6114, section 2.4; Figurnov, Mohamed and Mnih, arXiv 1805.08498, for implicit samples.

    >>> from npreparam import ops
    >>> from npreparam.prob import Normal
    >>> pathwise(ops.square, Normal, {"loc": 1.0, "scale": 2.0}, eps=np.array([0.0, 1.0]))
    {'loc': array([2., 6.]), 'scale': array([0., 6.])}
    """
    rows = Rows(family, parameters, samples, rng, eps)
    return rows.gradients(objective(f, rows.rows.rsample(eps=rows.eps)))


def straight_through(f: Objective, family: Family, parameters: Mapping[str, Any], samples: int | None = None, *, rng: Random | None = None,
                     eps: Any = None) -> Gradients:
    """The straight-through gradient of a Bernoulli or Categorical choice: f sees the choice, and the gradient of its probabilities.

    g_s = f'(z_s) * dp/dtheta

    **Biased**, unless f is affine: f' at the choices stands for the difference of f between them. Of a Categorical, f gets the choice as a row of
    zeros and a one, (S, ..., n).

    Raises ArgumentError for another distribution, ShapeError, DTypeError.

    Source: Bengio, Leonard and Courville, Estimating or propagating gradients through stochastic neurons, arXiv 1308.3432.

    >>> from npreparam import ops
    >>> from npreparam.prob import Bernoulli
    >>> straight_through(ops.square, Bernoulli, {"probs": 0.25}, eps=np.array([0.1, 0.9]))    # z = 1 and 0; the gradient is f(1) - f(0) = 1
    {'probs': array([2., 0.])}
    """
    rows = Rows(family, parameters, samples, rng, eps)
    if not isinstance(rows.base, Bernoulli | Categorical):
        raise ArgumentError(f"`family` makes a {type(rows.base).__name__}, but straight-through gradients are for Bernoulli and Categorical; "
                            "use pathwise")
    hard = rows.rows.sample(eps=rows.eps)
    if isinstance(rows.base, Categorical):
        hard = (hard[..., None] == np.arange(rows.base.classes)).astype(hard.dtype)
    return rows.gradients(objective(f, pass_through(rows.rows.p, hard)))  # type: ignore[attr-defined]
