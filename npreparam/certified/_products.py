"""Correctly rounded sums of products: a candidate, a proved bound on its error, a rounding test, and exact repair.

To float16, bfloat16 and float32 the candidate is the float64 kernel's: |error| <= h*u*S with S = sum|x||w|, u = 2^-53 and h roundings on
the longest way of a product through the sum (Higham, ASNA 2nd ed., section 4.2). A single chain of fused multiply-adds errs by at most
u*|s_k| in step k, and its partial sums are no larger than |x|*|w_1..k|: so h*|w| may be replaced by the sum of the norms of the beginnings
of w, about 2/3 of it. To float64 the candidate is a sum in doubled precision, |error| <= gamma_n^2*S for n terms (Ogita, Rump and Oishi,
SISC 26(6), 2005). Products that underflow add less than the smallest number of float64 each. S is majorized by Cauchy and Schwarz,
sum|x||w| <= |x|*|w| in Euclidean norms, computed in float64, whose own errors the factor 1 + 2^-20 outweighs.

Rounding is monotone. So where y - B and y + B round alike, the exact sum rounds to the same number (the rounding test of Ziv). The rest, some
in 10^4, are summed again in doubled precision with their own S, and what that leaves open is summed without error in `kernels.accumulate`.
A sum of magnitude S <= 2^53*q whose products are integer multiples of q = 2^k needs no test: no rounding happened in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam._errors import StateError
from npreparam._shapes import Window
from npreparam.certified._record import Certified
from npreparam.certified.functions import narrowed

Array = NDArray[Any]

UNIT, ETA = 2.0**-53, 2.0**-1074
SLACK = 1 + 2.0**-20  # for the rounding errors of the bound itself, which are below (MOST_TERMS + 10)*u
LATTICE_AT_LEAST = 256  # elements left open, beyond which it pays to look whether the operands lie on a lattice


class Sum(NamedTuple):
    """A sum of products for every element (n, o, p) of a result: how to compute it, and how large it can be."""

    candidate: Callable[[bool], Array]  # of shape (N, O, P); with True, pairs of shape (2, N, O, P)
    terms: int  # products in one element, at most
    depth: int  # roundings on the longest way through the candidate in float64
    across: Array  # (N, G, P): norms of one operand
    along: Array  # (O,): norms of the other
    walk: Array  # (O,): at most these, so that the candidate's error in float64 is at most depth*u*(across*walk + |start|)
    start: Array  # (O,): what each sum begins with
    repair: Callable[[Array, Array, int], Array]  # (flat indices, what they begin with, target) -> float64, see `accumulate.decide`
    operands: tuple[Array, Array]


def settle(problem: Sum, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Certified:
    """Every element of a sum of products, correctly rounded to a dtype."""
    trust_the_machine()
    if 0 in shape:
        return Certified(np.zeros(shape, dtype), 0)
    y = problem.candidate(dtype == np.float64)
    value, doubt = _tested(problem, y, dtype)
    flat, unsure = value.reshape(-1), np.flatnonzero(doubt)
    if len(unsure) >= LATTICE_AT_LEAST:
        unsure = _settle_lattice(problem, y, flat, unsure)
    if len(unsure):
        outputs, pixels = value.shape[1:]
        accumulate = kernels.accumulate
        target = {"float64": accumulate.TO_FLOAT64, "float32": accumulate.FLOAT32}.get(dtype.name, accumulate.TO_ODD)
        flat[unsure] = narrowed(problem.repair(unsure, problem.start[unsure // pixels % outputs], target), dtype)
    return Certified(value.reshape(shape), len(unsure))


def _tested(problem: Sum, y: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """(value, doubt), both (N, O, P)."""
    rounds, along = (((problem.terms + 2) * UNIT) ** 2, problem.along) if dtype == np.float64 else (problem.depth * UNIT, problem.walk)
    factor, tiny = rounds * SLACK, (problem.terms + 2) * ETA
    if dtype in (np.float32, np.float64):
        return kernels.certify.round_and_doubt(y, problem.across, along, problem.start, factor, tiny)
    across = np.repeat(problem.across, y.shape[1] // problem.across.shape[1], axis=1)
    size = across * along[:, None] + np.abs(problem.start)[:, None]
    bound = np.where(size == 0, 0, factor * size + tiny + 2.0**-51 * np.abs(y))
    low, value, high = (narrowed(end, dtype) for end in (y - bound, y + 0.0, y + bound))
    return value, ~((low == high) & (low != 0) | (size == 0))


def _magnitudes(problem: Sum, indices: Array) -> Array:
    """The majorants of S at flat indices of (N, O, P)."""
    groups, pixels = problem.across.shape[1:]
    rest, p = np.divmod(indices, pixels)
    n, o = np.divmod(rest, len(problem.along))
    return problem.across[n, o // (len(problem.along) // groups), p] * problem.along[o] + np.abs(problem.start[o])


def _settle_lattice(problem: Sum, y: Array, flat: Array, unsure: Array) -> Array:
    """Set those of the open elements whose candidates are exact; the indices of the others."""
    quantum = sum(kernels.certify.lowest_bit(operand) for operand in problem.operands)
    quantum = min(quantum, kernels.certify.lowest_bit(problem.start))
    if quantum < -1074:
        return unsure
    exact = _magnitudes(problem, unsure) * SLACK <= np.ldexp(1.0, min(53 + quantum, 1023))
    at = unsure[exact]
    sums = y.reshape(-1)[at] if y.ndim == 3 else y[0].reshape(-1)[at] + y[1].reshape(-1)[at]
    flat[at] = narrowed(sums + 0.0, flat.dtype)
    return unsure[~exact]


def trust_the_machine() -> None:
    """Raise StateError where the proofs do not hold: a wrong compilation, or a thread told to round otherwise or to flush to zero."""
    if not kernels.certify.default_environment(1.0, 2.0**-1022):
        raise StateError("this thread does not round to nearest, or flushes subnormal numbers to zero, so nothing can be certified; a library "
                         "built with -ffast-math may have set that when it was loaded: call from another thread, or do not load it")
    trust_the_compiler()


@lru_cache(1)
def trust_the_compiler() -> None:
    """Raise StateError where the compiled error-free transformations are not: a compiler that reassociates would break every proof."""
    sums, big, odd = kernels.conv2d, 2.0**53, 1 + 2.0**-30
    x, w = np.array([big, 1.0, -big, odd]), np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, odd]])
    image, expected = x.reshape(1, 4, 1, 1), np.array([[1.0, 1 + 2.0**-29], [0.0, 2.0**-60]])  # big + 1 - big, and odd^2, as unevaluated pairs
    pairs = [sums.forward_sums(image, w.reshape(2, 4, 1, 1), None, Window.of(1), pair=True).reshape(2, 2),
             np.concatenate([sums.forward_sums(image, row.reshape(1, 4, 1, 1), None, Window.of(1), pair=True).reshape(2, 1) for row in w], axis=1),
             sums.weight_grad_sums(w.T.reshape(4, 2, 1, 1), x.reshape(4, 1, 1, 1), Window.of(1), pair=True).reshape(2, 2)]
    odd_sum = kernels.accumulate.decide(x, w.sum(axis=0), 4, 0.0, kernels.accumulate.TO_ODD, np.zeros(kernels.accumulate.LIMBS, np.int64))
    one = np.ones((1, 1, 1))
    tie, doubt = kernels.certify.round_and_doubt(np.array([1.0, 2.0**-53]).reshape(2, 1, 1, 1), one, one[0, 0], one[0, 0], 2.0**-99, 0.0)
    if not (all(_same_pairs(found, expected) for found in pairs) and odd_sum == 2 + 2.0**-29 + 2.0**-51 and tie.item() == 1 and doubt.item()):
        raise StateError("the error-free transformations are compiled wrong (a fused multiply-add that rounds twice, or reassociated additions), "
                         "so nothing can be certified; remove Numba's cache and fast-math settings, or try NUMBA_CPU_NAME=generic")


def _same_pairs(found: Array, expected: Array) -> bool:
    high = found[0] + found[1]
    return bool((high == expected[0]).all() and ((found[0] - high) + found[1] == expected[1]).all())
