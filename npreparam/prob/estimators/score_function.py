"""Gradients through the density: the score function, and baselines that lower its variance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.ops._validate import is_number
from npreparam.prob._distribution import Array, Random
from npreparam.prob.estimators._rows import Family, Gradients, Objective, Rows, as_tensor, joint_log_prob, objective
from npreparam.tape.tensor import value_of

Baseline = float | str | None


def score_function(f: Objective, family: Family, parameters: Mapping[str, Any], samples: int | None = None, *, baseline: Baseline = None,
                   rng: Random | None = None, eps: Any = None) -> Gradients:
    """The score-function gradient (REINFORCE): f need not be differentiable, nor the distribution continuous.

    g_s = (f(z_s) - b_s) * d log q(z_s; theta)/dtheta

    `baseline` is None (b = 0), a number, or one of two that are made of the *other* samples, so that the estimate stays unbiased:

        "leave_one_out"  b_s = mean of f(z_t) over t != s
        "optimal"        b_s = (sum of f(z_t)*h_t^2)/(sum of h_t^2) over t != s, h_t = d log q(z_t)/dtheta: the constant of least variance,
                         E[f h^2]/E[h^2], estimated for each element of each parameter (0 where all h_t are 0)

    See `npreparam.prob.estimators` for the arguments; `eps` has shape (S, *noise shape of the distribution).

    Raises ArgumentError for an unknown baseline, or one of other samples where there are none; ShapeError, DTypeError.

    Source: Williams, Machine Learning 8, 1992; Kool, van Hoof and Welling, Buy 4 REINFORCE samples, 2019, for leaving one out; Mohamed et al.,
    JMLR 21(132), 2020, section 7.4.1 for the optimal constant.

    >>> from npreparam import ops
    >>> from npreparam.prob import Normal
    >>> score_function(ops.square, Normal, {"loc": 1.0, "scale": 2.0}, eps=np.array([0.0, 1.0]))["loc"]
    array([0. , 4.5])
    """
    _check_baseline(baseline)
    rows = Rows(family, parameters, samples, rng, eps)
    if isinstance(baseline, str) and rows.samples < 2:
        raise ArgumentError(f"`baseline` (={baseline!r}) is made of the other samples, but there is one sample; draw 2 at least")
    z = rows.base.sample(eps=rows.eps)
    values = np.asarray(value_of(objective(f, as_tensor(z))))
    scores = rows.gradients(joint_log_prob(rows.rows, z))
    return {name: _centred(values, score, baseline) * score for name, score in scores.items()}


def _check_baseline(baseline: Any) -> None:
    if baseline in (None, "optimal", "leave_one_out") or (is_number(baseline) and math.isfinite(baseline)):
        return
    raise ArgumentError(f"`baseline` (={baseline!r}) must be None, a finite number, 'optimal' or 'leave_one_out'")


def _centred(values: Array, score: Array, baseline: Baseline) -> Array:
    """f(z_s) - b_s, with axes of length 1 behind the first where b is one number for all elements."""
    column = values.reshape(-1, *[1] * (score.ndim - 1))
    if baseline is None:
        return column
    if baseline == "leave_one_out":
        return column - _of_others(column) / column.dtype.type(len(values) - 1)
    if baseline == "optimal":
        squares = score * score
        weight = _of_others(squares)
        return column - np.divide(_of_others(column * squares), weight, out=np.zeros_like(weight), where=weight > 0)
    return column - column.dtype.type(baseline)


def _of_others(terms: Array) -> Array:
    """The sum of all terms but one, for each: of those before it and those behind it, so that a large term is never subtracted again."""
    zero = np.zeros_like(terms[:1])
    before = np.concatenate([zero, np.cumsum(terms[:-1], 0)])
    behind = np.concatenate([np.cumsum(terms[:0:-1], 0)[::-1], zero])
    return before + behind
