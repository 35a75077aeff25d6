"""Samples of a Dirichlet distribution that are differentiable in the concentration (see `incomplete_gamma`)."""

from __future__ import annotations

from typing import Any

import numpy as np  # noqa: F401  (the example uses it)

from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array
from npreparam.ops.arithmetic import div, mul, quiet, sub
from npreparam.ops.incomplete_beta import beta_slope_a
from npreparam.ops.shape import sum as sum_over
from npreparam.ops.special import checked_noise, implicit


@primitive
@quiet
def standard_dirichlet_rsample(concentration: Array, eps: Array) -> Array:
    """eps itself, a draw from the Dirichlet distribution along the last axis, now differentiable in the concentration.

    dz_j/da_i = s_i*(1 if i = j else -z_j/(1 - z_i))        s_i = dz_i/da_i of the marginal Beta(a_i, a_0 - a_i)

    The other elements shrink in proportion, for their shares are independent of z_i. Elements of eps lie strictly between 0 and 1.

    Differentiable twice: second derivatives follow z along dz/da. From three elements on these fields do not commute, so that the second
    derivatives of one sample are not symmetric, though their expectations are.

    >>> standard_dirichlet_rsample(np.array([1.0, 2.0]), np.array([0.25, 0.75]))
    array([0.25, 0.75])
    """
    return checked_noise(eps, concentration=concentration)[-1].copy()


def _vjp(g: Array, z: Array, concentration: Any) -> Array:
    """Sum over j of g_j*dz_j/da_i = s_i*(g_i - sum of g_j*z_j)/(1 - z_i)."""
    others = sub(sum_over(concentration, axis=-1, keepdims=True), concentration)
    spread = div(sub(g, sum_over(mul(g, z), axis=-1, keepdims=True)), sub(1.0, z))
    return implicit(spread, beta_slope_a(concentration, others, z), concentration)


gradient(standard_dirichlet_rsample, "concentration", lambda g, y, a: _vjp(g, y, a.concentration))
