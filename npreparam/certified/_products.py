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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam.certified._record import Certified
from npreparam.certified._trust import trust_the_machine
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
    along: Callable[[], Array]  # (O,): norms of the other
    walk: Callable[[], Array]  # (O,): at most these, so that the candidate's error in float64 is at most depth*u*(across*walk + |start|)
    start: Array  # (O,): what each sum begins with
    repair: Callable[[Array, Array, int], Array]  # (flat indices, what they begin with, target) -> float64, see `accumulate.decide`
    operands: tuple[Array, Array]
    out: Array | None = None  # where the result goes, in C order; else to fresh memory


def settle(problem: Sum, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Certified:
    """Every element of a sum of products, correctly rounded to a dtype."""
    trust_the_machine()
    result = np.empty(shape, dtype) if problem.out is None else problem.out
    if 0 in shape:
        return Certified(result, 0)
    y = problem.candidate(dtype == np.float64)
    doubt = _tested(problem, y, result.reshape(y.shape[-3:]))
    flat, unsure = result.reshape(-1), np.flatnonzero(doubt)
    if len(unsure) >= LATTICE_AT_LEAST:
        unsure = _settle_lattice(problem, y, flat, unsure)
    if len(unsure):
        outputs, pixels = doubt.shape[1:]
        accumulate = kernels.accumulate
        target = {"float64": accumulate.TO_FLOAT64, "float32": accumulate.FLOAT32}.get(dtype.name, accumulate.TO_ODD)
        flat[unsure] = narrowed(problem.repair(unsure, problem.start[unsure // pixels % outputs], target), dtype)
    return Certified(result, len(unsure))


def _tested(problem: Sum, y: Array, value: Array) -> Array:
    """Candidates rounded to `value`, and which of them are in doubt, both (N, O, P)."""
    dtype = value.dtype
    rounds, along = (((problem.terms + 2) * UNIT) ** 2, problem.along()) if dtype == np.float64 else (problem.depth * UNIT, problem.walk())
    factor, tiny = rounds * SLACK, (problem.terms + 2) * ETA
    if dtype in (np.float32, np.float64):
        return kernels.certify.round_and_doubt(y, problem.across, along, problem.start, factor, tiny, value)
    across = np.repeat(problem.across, y.shape[1] // problem.across.shape[1], axis=1)
    size = across * along[:, None] + np.abs(problem.start)[:, None]
    bound = np.where(size == 0, 0, factor * size + tiny + 2.0**-51 * np.abs(y))
    low, value[...], high = (narrowed(end, dtype) for end in (y - bound, y + 0.0, y + bound))
    return ~((low == high) & (low != 0) | (size == 0))


def _magnitudes(problem: Sum, indices: Array) -> Array:
    """The majorants of S at flat indices of (N, O, P)."""
    (groups, pixels), outputs = problem.across.shape[1:], len(problem.start)
    rest, p = np.divmod(indices, pixels)
    n, o = np.divmod(rest, outputs)
    return problem.across[n, o // (outputs // groups), p] * problem.along()[o] + np.abs(problem.start[o])


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
