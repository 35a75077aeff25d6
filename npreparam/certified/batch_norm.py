"""Batch norm and its gradient, correctly rounded at the speed of arrays.

The sums of a channel are exact integers (`kernels.exact_sums`), so its mean and variance are the rational numbers they are in `exact`, however
the values cancel. Each element is then an affine map with such constants, enclosed and rounded by `_affine`; an element that its bound does not
decide is rounded by `exact.roots` from the constants of its channel. Errors, NaN and infinities: as in `exact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam._errors import ShapeError
from npreparam._shapes import as_bool
from npreparam.certified._affine import as_array, as_floats, flat, number, plane_shape, rounded_affine, row, spread, target
from npreparam.certified._record import Certified
from npreparam.certified._sums import special_sum, unit_of
from npreparam.exact.batch_norm import at_least_two, channel_vectors, inverse_root, scalar, updated
from npreparam.exact.fuse import rounded_sums
from npreparam.exact.roots import InverseRoot, Number, round_sum
from npreparam.exact.rounding import FORMATS, as_numbers, result_dtype
from npreparam.exact.special import NAN, Special

Array = NDArray[Any]
Shape = tuple[int, int, int]
ZERO = Fraction(0)


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
    gamma, beta, old_mean, old_var = channel_vectors(x.shape, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    values, shape, form = flat(x), plane_shape(x.shape), FORMATS[dtype.name]
    statistics = list(_batch_statistics(values, shape) if training else zip(old_mean, old_var, strict=True))
    roots = _roots(statistics, eps, training)
    table = [row(as_floats(mean, count=3), as_floats(gamma[c], roots[c]), shift=as_floats(beta[c]), spread=spread(dtype))
             for c, (mean, _) in enumerate(statistics)]

    def repair(index: int) -> int:
        c = index // shape[2] % shape[1]
        return round_sum(beta[c], [((number(values[index]) - statistics[c][0]) * gamma[c], roots[c])], form)

    y, repaired = rounded_affine(values, None, table, shape, dtype, repair, _undefined([root.v for root in roots]))
    y = y.reshape(x.shape)
    if not training:
        return Certified(y, repaired)
    means, variances = ([pair[i] for pair in statistics] for i in (0, 1))
    return Certified((y, *updated((old_mean, means), (old_var, variances), momentum, shape[0] * shape[2], dtype)), repaired)


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
    gamma, old_mean, old_var = channel_vectors(x.shape, gamma=gamma, running_mean=running_mean, running_var=running_var)
    if gy.shape != x.shape:
        raise ShapeError(f"`gy` has shape {gy.shape}, but must have shape {x.shape}")
    wide = np.float64 in (x.dtype, gy.dtype)
    values, cotangents, shape, form = flat(x, wide), flat(gy, wide), plane_shape(x.shape), FORMATS[dtype.name]
    statistics = list(_batch_statistics(values, shape) if training else zip(old_mean, old_var, strict=True))
    roots, n = _roots(statistics, eps, training), max(1, shape[0] * shape[2])
    totals, products = _cotangent_sums(cotangents, values, shape, [mean for mean, _ in statistics])
    through = [product * Fraction(1, n) * (1 / root.v if isinstance(root.v, Fraction) else NAN) if training else ZERO
               for product, root in zip(products, roots, strict=True)]
    shifts = [total * Fraction(1, n) if training else ZERO for total in totals]

    def repair(index: int) -> int:
        c = index // shape[2] % shape[1]
        g = number(cotangents[index])
        if training:
            g = g - shifts[c] - (number(values[index]) - statistics[c][0]) * through[c]
        return round_sum(ZERO, [(g * gamma[c], roots[c])], form)

    slopes, undefined = [as_floats(gamma[c], root) for c, root in enumerate(roots)], _undefined([root.v for root in roots], through, shifts)
    if training:
        table = [row(as_floats(mean, count=3), as_floats(-(gamma[c] * through[c]), roots[c]), slopes[c],
                     as_floats(-(gamma[c] * shifts[c]), roots[c]), spread(dtype)) for c, (mean, _) in enumerate(statistics)]
        gx, repaired = rounded_affine(values, cotangents, table, shape, dtype, repair, undefined)
    else:
        table = [row(([0.0] * 3, 0.0), slope, spread=spread(dtype)) for slope in slopes]
        gx, repaired = rounded_affine(cotangents, None, table, shape, dtype, repair, undefined)
    ggamma = rounded_sums([(ZERO, [term]) for term in zip(products, roots, strict=True)], dtype)
    return Certified((gx.reshape(x.shape), ggamma, rounded_sums([(total, []) for total in totals], dtype)), repaired)


def _roots(statistics: list[tuple[Number, Number]], eps: float, training: bool) -> list[InverseRoot]:
    exact_eps = scalar(eps, "eps")
    return [inverse_root(var, exact_eps, c, training) for c, (_, var) in enumerate(statistics)]


def _undefined(*constants: list[Number]) -> list[bool]:
    """Which channels have a NaN among their constants."""
    return [any(isinstance(value, Special) and not value.sign for value in values) for values in zip(*constants, strict=True)]


def _batch_statistics(values: Array, shape: Shape) -> Iterator[tuple[Number, Number]]:
    """Mean and biased variance of each channel, exactly."""
    if not shape[1]:
        return
    n, unit = at_least_two(shape[0] * shape[2]), unit_of(values)
    for total, square, code in zip(*kernels.exact_sums.exact_sums(values, values, shape), strict=True):
        if code:
            yield special_sum(code) * Fraction(1, n), NAN
        else:
            yield Fraction(total, n << unit), Fraction(n * square - total * total, n * n << 2 * unit)


def _cotangent_sums(g: Array, x: Array, shape: Shape, means: list[Number]) -> tuple[list[Number], list[Number]]:
    """(sum g, sum g*(x - mean)) of each channel, exactly."""
    unit, totals, products = unit_of(g), [], []
    for c, (total, product, code) in enumerate(zip(*kernels.exact_sums.exact_sums(g, x, shape), strict=True)):
        totals.append(special_sum(code) if code & 7 else Fraction(total, 1 << unit))
        if code or not isinstance(means[c], Fraction):
            numbers = [as_numbers(v.reshape(shape)[:, c], "x") for v in (g, x)]
            products.append(np.sum(numbers[0] * (numbers[1] - means[c])))
        else:
            products.append(Fraction(product, 1 << 2 * unit) - means[c] * totals[c])
    return totals, products
