"""Measure-valued gradients of a Normal: the derivative of a density as a difference of two densities, which both can be sampled.

d/dloc   N(z; loc, scale^2) = (P(z) - Q(z))/(scale*sqrt(2 pi))    P, Q: loc + scale*W and loc - scale*W, W ~ Weibull(sqrt(2), 2) = Rayleigh(1)
d/dscale N(z; loc, scale^2) = (P(z) - Q(z))/scale                 P: loc + scale*M, M double-sided Maxwell, density m^2 exp(-m^2/2)/sqrt(2 pi)
                                                                  Q: the Normal itself
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.ops._validate import as_lengths
from npreparam.ops.arithmetic import unbroadcast
from npreparam.prob._distribution import Array, Random, as_generator
from npreparam.prob._parameters import NON_NEGATIVE, REAL, UNIT_INTERVAL, as_value, check_rule, uniform_noise
from npreparam.prob.estimators._rows import Family, Gradients, Objective, as_arrays, drawn_count, given_count, objective
from npreparam.prob.location_scale import Normal
from npreparam.tape.tensor import Tensor, value_of


class MeasureNoise(NamedTuple):
    """Three independent arrays (S, *batch shape): W ~ Rayleigh(1), M ~ double-sided Maxwell, U ~ U(0, 1). M*U is standard normal.

    >>> MeasureNoise(rayleigh=np.ones(2), maxwell=-np.ones(2), uniform=np.full(2, 0.5)).maxwell
    array([-1., -1.])
    """

    rayleigh: Any
    maxwell: Any
    uniform: Any


def measure_noise(shape: Any, rng: Random, dtype: Any = np.float64) -> MeasureNoise:
    """Noise for `measure_valued`, of `shape` (S, *batch shape).

    >>> [array.shape for array in measure_noise((4, 3), rng=0)]
    [(4, 3), (4, 3), (4, 3)]
    """
    lengths, rng, dtype = as_lengths(shape), as_generator(rng), np.dtype(dtype)
    rayleigh = np.sqrt(2 * rng.standard_exponential(lengths))
    maxwell = np.sqrt(2 * rng.standard_gamma(1.5, lengths)) * rng.choice((-1.0, 1.0), lengths)
    return MeasureNoise(rayleigh.astype(dtype), maxwell.astype(dtype), uniform_noise(lengths, rng, dtype))


def measure_valued(f: Objective, family: Family, parameters: Mapping[str, Any], samples: int | None = None, *, rng: Random | None = None,
                   eps: MeasureNoise | None = None) -> Gradients:
    """The measure-valued gradient of a Normal, coupled: both measures share their noise. f need not be differentiable.

    d/dloc:   (f(loc + scale*W) - f(loc - scale*W))/(scale*sqrt(2 pi))
    d/dscale: (f(loc + scale*M) - f(loc + scale*M*U))/scale

    In a batch, one element moves at a time and the others are loc + scale*M*U, so that f is run 3 times for each element, and once more.

    `family` is Normal; `eps` is a `MeasureNoise` of arrays (S, *batch shape).

    Raises ArgumentError for another distribution, ShapeError, DTypeError.

    Source: Heidergott, Vazquez-Abad and Volk-Makarewicz, European J. Oper. Res. 187, 2008; Mohamed et al., JMLR 21(132), 2020, section 6.

    >>> from npreparam import ops
    >>> noise = MeasureNoise(rayleigh=np.array([1.0]), maxwell=np.array([2.0]), uniform=np.array([0.5]))
    >>> measure_valued(ops.square, Normal, {"loc": 0.0, "scale": 2.0}, eps=noise)
    {'loc': array([0.]), 'scale': array([6.])}
    """
    if family is not Normal:
        raise ArgumentError(f"`family` (={getattr(family, '__name__', family)!r}) must be Normal, whose decomposition is known here")
    base = Normal(**as_arrays(parameters))
    loc, scale = (value_of(base.parameters[name]) for name in ("loc", "scale"))
    noise = _noise(base, samples, rng, eps)
    middle = loc + scale * noise.maxwell * noise.uniform
    above, below, outer = (loc + scale * w for w in (noise.rayleigh, -noise.rayleigh, noise.maxwell))
    unmoved = _values(f, middle)
    of_loc, of_scale = np.empty_like(middle), np.empty_like(middle)
    for i in np.ndindex(base.batch_shape):
        at = (slice(None), *i)
        upper, lower, far = (_values(f, _replaced(middle, at, points)) for points in (above, below, outer))
        of_loc[at], of_scale[at] = (upper - lower) / middle.dtype.type(math.sqrt(2 * math.pi)), far - unmoved
    found = {"loc": (of_loc / scale, loc.shape), "scale": (of_scale / scale, scale.shape)}
    return {name: _summed(values, shape) for name, (values, shape) in found.items() if name in parameters}


def _values(f: Objective, z: Array) -> Array:
    return np.asarray(value_of(objective(f, Tensor(z, "z"))))


def _replaced(z: Array, at: Any, points: Array) -> Array:
    """A copy of z with one element of every sample from `points`."""
    z = z.copy()
    z[at] = points[at]
    return z


def _summed(g: Array, shape: tuple[int, ...]) -> Array:
    """Gradients (S, *batch shape) summed over the axes along which the parameter of `shape` was repeated."""
    aligned = (len(g), *[1] * (g.ndim - 1 - len(shape)), *shape)
    return unbroadcast(g, aligned).reshape(len(g), *shape)


def _noise(base: Normal, samples: int | None, rng: Random | None, eps: Any) -> MeasureNoise:
    count = drawn_count(samples, rng, eps)
    if count is not None:
        return measure_noise((count, *base.batch_shape), rng, base.dtype)
    if not isinstance(eps, MeasureNoise):
        raise ArgumentError(f"`eps` (a {type(eps).__name__}) must be a MeasureNoise; `measure_noise` draws one")
    arrays = MeasureNoise(*(as_value(value, name, base.dtype) for name, value in zip(MeasureNoise._fields, eps, strict=True)))
    for name, array, rule in zip(MeasureNoise._fields, arrays, (NON_NEGATIVE, REAL, UNIT_INTERVAL), strict=True):
        samples = given_count(f"eps.{name}", array.shape, base.batch_shape, samples)
        check_rule(array, name, rule)
    return arrays
