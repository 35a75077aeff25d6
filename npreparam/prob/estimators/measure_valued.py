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

from npreparam._errors import ArgumentError, ShapeError
from npreparam.ops._validate import as_lengths
from npreparam.ops.arithmetic import unbroadcast
from npreparam.prob._distribution import Array, Random, as_generator
from npreparam.prob._parameters import NON_NEGATIVE, REAL, UNIT_INTERVAL, as_value, check_rule, uniform_noise
from npreparam.prob.estimators._rows import Family, Gradients, Objective, as_arrays, as_tensor, objective, sample_count
from npreparam.prob.location_scale import Normal
from npreparam.tape.tensor import value_of


class MeasureNoise(NamedTuple):
    """Three independent arrays (S, *batch shape): W ~ Rayleigh(1), M ~ double-sided Maxwell, U ~ U(0, 1). M*U is standard normal."""

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
    count = len(noise.rayleigh)
    middle = loc + scale * noise.maxwell * noise.uniform
    at_middle = _values(f, middle)
    spread, flat = np.broadcast_to(scale, base.batch_shape).ravel(), middle.reshape(count, -1)
    of_loc, of_scale = np.empty_like(flat), np.empty_like(flat)
    above, below, outer = ((loc + scale * w).reshape(count, -1) for w in (noise.rayleigh, -noise.rayleigh, noise.maxwell))

    def moved(values: Array, i: int) -> Array:
        replaced = flat.copy()
        replaced[:, i] = values[:, i]
        return _values(f, replaced.reshape(middle.shape))

    for i in range(flat.shape[1]):
        of_loc[:, i] = (moved(above, i) - moved(below, i)) / (spread[i] * math.sqrt(2 * math.pi))
        of_scale[:, i] = (moved(outer, i) - at_middle) / spread[i]
    found = {"loc": (of_loc, loc.shape), "scale": (of_scale, scale.shape)}
    return {name: _summed(values.reshape(middle.shape), shape) for name, (values, shape) in found.items() if name in parameters}


def _values(f: Objective, z: Array) -> Array:
    return np.asarray(value_of(objective(f, as_tensor(z))))


def _summed(g: Array, shape: tuple[int, ...]) -> Array:
    """Gradients (S, *batch shape) summed over the axes along which the parameter of `shape` was repeated."""
    aligned = (len(g), *[1] * (g.ndim - 1 - len(shape)), *shape)
    return unbroadcast(g, aligned).reshape(len(g), *shape)


def _noise(base: Normal, samples: int | None, rng: Random | None, eps: Any) -> MeasureNoise:
    if (rng is None) == (eps is None):
        raise ArgumentError(f"noise comes from `rng` or from `eps`, but {'neither is' if rng is None else 'both are'} given; pass a "
                            "numpy.random.Generator, a seed, or a MeasureNoise")
    if eps is None:
        return measure_noise((sample_count(samples), *base.batch_shape), rng, base.dtype)
    if not isinstance(eps, MeasureNoise):
        raise ArgumentError(f"`eps` (a {type(eps).__name__}) must be a MeasureNoise; `measure_noise` draws one")
    arrays = MeasureNoise(*(as_value(value, name, base.dtype) for name, value in zip(MeasureNoise._fields, eps, strict=True)))
    count = arrays.rayleigh.shape[0] if arrays.rayleigh.ndim else 0
    for name, array, rule in zip(MeasureNoise._fields, arrays, (NON_NEGATIVE, REAL, UNIT_INTERVAL), strict=True):
        if array.shape != (count, *base.batch_shape) or count < 1 or samples not in (None, count):
            wanted = "samples" if samples is None else samples
            raise ShapeError(f"`{name}` of `eps` has shape {array.shape}, but must have shape ({wanted}"
                             f"{''.join(f', {n}' for n in base.batch_shape)}), as the others: noise for each sample")
        check_rule(array, name, rule)
    return arrays
