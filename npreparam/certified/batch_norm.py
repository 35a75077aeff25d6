"""Batch norm and its gradient, correctly rounded at the speed of arrays.

The sums of a channel are exact integers (`kernels.exact_sums`), so its mean and variance are the rational numbers they are in `exact`, however
the values cancel. Each element is then an affine map with such constants. It is rounded by the first of three that decides it: where all is
float32, `kernels.affine.settle` with constants that are floats within 16u of them; `kernels.affine.enclose` with pairs and triples of floats;
`exact.roots` with the rational numbers of its channel, which are made where they are needed. Errors, NaN and infinities: as in `exact`.

The floats of `settle`, by rounding errors of u each: gamma/sqrt(v) has 3 (v 2, halved by the root, the root and the quotient);
sum g*(x - mean)/n * gamma/sqrt(v) / v has 9 (2 and 3, products 1, v 2 and the quotient), sum g/n * gamma/sqrt(v) has 6, beta none.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ShapeError
from npreparam._shapes import as_bool
from npreparam.certified._affine import as_array, as_floats, flat, near_table, number, plane_shape, rounded_affine, rounded_near, row, spread, target
from npreparam.certified._inputs import quiet
from npreparam.certified._record import Certified
from npreparam.certified._statistics import Shape, Statistics, Sums, Vector
from npreparam.exact.batch_norm import blend_weights, channel_vectors, round_blend, scalar
from npreparam.exact.roots import Number, round_sum
from npreparam.exact.rounding import FORMATS, result_dtype
from npreparam.exact.special import NAN, Special

Array = NDArray[Any]
ZERO = Fraction(0)


@quiet
def batch_norm(x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, training: bool = False, momentum: float = 0.1,
               eps: float = 1e-5, out_dtype: Any = "same") -> Certified:
    """The correctly rounded batch norm y = (x - mean)/sqrt(var + eps)*gamma + beta for each channel.

    Arguments as in `exact.batch_norm`, but x and the results are float16, bfloat16, float32 or float64. `value` is y, or where `training`
    (y, running_mean', running_var').

    Rounding: each element once, to nearest, ties to even, whatever the order of the elements in memory and the number of threads.

    Raises ShapeError, DTypeError, ArgumentError as `exact.batch_norm`.

    Source: Ioffe and Szegedy, arXiv 1502.03167, algorithms 1 and 2.

    >>> one = np.ones(1, np.float32)
    >>> batch_norm(np.array([[1], [3]], np.float32), one, 0 * one, 0 * one, one, training=True, eps=0).value[0]
    array([[-1.],
           [ 1.]], dtype=float32)
    """
    as_bool(training, "training")
    x, dtype = as_array(x, "x"), target(result_dtype(out_dtype, x))
    gamma, beta, old_mean, old_var = channel_vectors(x.shape, Vector, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    values, shape, form = flat(x), plane_shape(x.shape), FORMATS[dtype.name]
    stats = _statistics(values, shape, old_mean, old_var, eps, training)

    def constants(c: int) -> list[float]:
        return row(as_floats(stats.exact(c)[0], count=3), as_floats(gamma[c], stats.root(c)), shift=as_floats(beta[c]), spread=spread(dtype))

    def repair(index: int) -> int:
        c = index // shape[2] % shape[1]
        return round_sum(beta[c], [((number(values[index]) - stats.exact(c)[0]) * gamma[c], stats.root(c))], form)

    near = near_table(*stats.means.T, stats.scales(gamma), 0.0, beta.floats)
    y, repaired = rounded_affine(values, None, constants, shape, dtype, repair, lambda c: is_nan(stats.root(c).v), near)
    y = y.reshape(x.shape)
    if not training:
        return Certified(y, repaired)
    return Certified((y, *_updated((old_mean, old_var), stats, blend_weights(momentum, shape[0] * shape[2]), dtype)), repaired)


@quiet
def batch_norm_grad(gy: Any, x: Any, gamma: Any, running_mean: Any, running_var: Any, training: bool = False, eps: float = 1e-5,
                    out_dtype: Any = "same") -> Certified:
    """The correctly rounded cotangents (gx, ggamma, gbeta) of `batch_norm` for the cotangent gy of its y.

    Formulas and arguments as in `exact.batch_norm_grad`, dtypes, rounding, errors and source as in `batch_norm`.

    >>> one = np.ones(1)
    >>> batch_norm_grad(np.array([[4.0]]), np.array([[3.0]]), one, one, 4 * one, eps=0).value
    (array([[2.]]), array([4.]), array([4.]))
    """
    as_bool(training, "training")
    x, gy, dtype = as_array(x, "x"), as_array(gy, "gy"), target(result_dtype(out_dtype, gy))
    gamma, old_mean, old_var = channel_vectors(x.shape, Vector, gamma=gamma, running_mean=running_mean, running_var=running_var)
    if gy.shape != x.shape:
        raise ShapeError(f"`gy` has shape {gy.shape}, but must have shape {x.shape}")
    wide = np.float64 in (x.dtype, gy.dtype)
    values, cotangents, shape = flat(x, wide), flat(gy, wide), plane_shape(x.shape)
    stats = _statistics(values, shape, old_mean, old_var, eps, training)
    sums = Sums.of(cotangents, values, shape, lambda c: stats.exact(c)[0])
    gx, repaired = (_training_gx if training else _evaluation_gx)(cotangents, values, shape, gamma, stats, sums, dtype)
    ggamma = sums.products / np.sqrt(stats.v)  # within 4u
    form = FORMATS[dtype.name]
    ggamma = rounded_near(ggamma, np.abs(ggamma), dtype, lambda c: round_sum(ZERO, [(sums.exact_product(c), stats.root(c))], form))
    gbeta = rounded_near(sums.totals, np.abs(sums.totals), dtype, lambda c: round_sum(sums.exact_total(c), [], form))
    return Certified((gx.reshape(x.shape), ggamma, gbeta), repaired)


def _evaluation_gx(g: Array, x: Array, shape: Shape, gamma: Vector, stats: Statistics, sums: Sums, dtype: np.dtype[Any]) -> tuple[Array, int]:
    """gx = g*gamma/sqrt(v), flat, and the number of repairs."""
    def constants(c: int) -> list[float]:
        return row(as_floats(ZERO, count=3), as_floats(gamma[c], stats.root(c)), spread=spread(dtype))

    def repair(index: int) -> int:
        c = index // shape[2] % shape[1]
        return round_sum(ZERO, [(number(g[index]) * gamma[c], stats.root(c))], FORMATS[dtype.name])

    near = near_table(0.0, 0.0, stats.scales(gamma), 0.0, 0.0)
    return rounded_affine(g, None, constants, shape, dtype, repair, lambda c: is_nan(stats.root(c).v), near)


def _training_gx(g: Array, x: Array, shape: Shape, gamma: Vector, stats: Statistics, sums: Sums, dtype: np.dtype[Any]) -> tuple[Array, int]:
    """gx = (g - offset - (x - mean)*through)*gamma/sqrt(v), with offset = sum g/n and through = sum g*(x - mean)/(n*v), flat, and repairs."""
    n = shape[0] * shape[2]

    def offset(c: int) -> Number:
        return sums.exact_total(c) * Fraction(1, n)

    @cache
    def through(c: int) -> Number:
        v = stats.root(c).v
        return sums.exact_product(c) * Fraction(1, n) * (1 / v if isinstance(v, Fraction) else NAN)

    def constants(c: int) -> list[float]:
        root = stats.root(c)
        return row(as_floats(stats.exact(c)[0], count=3), as_floats(-(gamma[c] * through(c)), root), as_floats(gamma[c], root),
                   as_floats(-(gamma[c] * offset(c)), root), spread(dtype))

    def repair(index: int) -> int:
        c = index // shape[2] % shape[1]
        inner = number(g[index]) - offset(c) - (number(x[index]) - stats.exact(c)[0]) * through(c)
        return round_sum(ZERO, [(inner * gamma[c], stats.root(c))], FORMATS[dtype.name])

    scale = stats.scales(gamma)
    near = near_table(*stats.means.T, -(sums.products / n * scale / stats.v), scale, -(sums.totals / n * scale))
    return rounded_affine(x, g, constants, shape, dtype, repair, lambda c: any(is_nan(a) for a in (stats.root(c).v, through(c), offset(c))), near)


def is_nan(number: Number) -> bool:
    """Whether it is none."""
    return isinstance(number, Special) and not number.sign


def _statistics(values: Array, shape: Shape, mean: Vector, var: Vector, eps: float, training: bool) -> Statistics:
    """Those of the batch while training, else the running ones."""
    exact_eps = scalar(eps, "eps")
    return Statistics.of_batch(values, shape, exact_eps) if training else Statistics.of_running(mean, var, exact_eps)


def _updated(old: tuple[Vector, Vector], stats: Statistics, weights: tuple[Fraction, Fraction, Fraction], dtype: np.dtype[Any]) -> list[Array]:
    """The rounded running statistics: kept*old + taken*new, as floats within 4u of the sizes of both terms."""
    kept, blended = weights[0], []
    for i, (new, taken) in enumerate(zip((stats.means[:, 0], stats.variances), weights[1:], strict=True)):
        terms = float(kept) * old[i].floats, float(taken) * new

        def repair(c: int, i: int = i, taken: Fraction = taken) -> int:
            return round_blend(old[i][c], kept, stats.exact(c)[i], taken, FORMATS[dtype.name])

        blended.append(rounded_near(terms[0] + terms[1], np.abs(terms[0]) + np.abs(terms[1]), dtype, repair))
    return blended
