"""What known mistakes would make of a case, compared with what came out of it: see `diagnosis` for the rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam.certified.bounds import Profile
from npreparam.certified.bounds.profile import FORMATS, smallest, unit
from npreparam.conformance.case import Case, Level
from npreparam.conformance.explain import ROUNDED, coarser_operands
from npreparam.conformance.grade import GRADES, allows_no_error, grades, within
from npreparam.conformance.mistakes import Mistake, balls, mistaken, mistakes_of
from npreparam.conformance.mistakes._ball import Ball
from npreparam.conformance.mistakes._evaluate import outermost
from npreparam.conformance.mistakes._trial import is_visible
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import Truth, truths

Array = NDArray[Any]
Outputs = tuple[Array, ...]

MOST_PAIRS = 1000  # of mistakes, tried on one result
LARGEST = 2**16  # elements of the arguments beyond which pairs are not tried


@dataclass(frozen=True, slots=True)
class Finding:
    """A known mistake, or two of which the second is inside the first, that explains a result.

    `operands` says what they were rounded to, if anything; `same_bits` whether the results are equal; `alike` names what the input does not
    tell from it.

    >>> from npreparam.conformance.mistakes import mistake_named
    >>> Finding((mistake_named("conv2d", "kernel flipped"),), same_bits=True).name
    'kernel flipped'
    """

    mistakes: tuple[Mistake, ...]
    operands: str = ""
    same_bits: bool = False
    sharp: bool = True
    alike: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = ["the same bits" if self.same_bits else "within rounding"] + ([f"of {self.operands}"] if self.operands else [])
        how += [f"here the same as: {', '.join(self.alike)}"] if self.alike else []
        return f"{self.name} ({'; '.join(how)}); look at: {'; '.join(mistake.look for mistake in self.mistakes)}"

    @property
    def name(self) -> str:
        """The mistakes in words."""
        return " and ".join(map(str, self.mistakes))

    @property
    def key(self) -> tuple[tuple[Mistake, ...], str]:
        """What it says, apart from the evidence."""
        return self.mistakes, self.operands

    @property
    def rank(self) -> tuple[int, int, bool, bool, bool]:
        """The ranking rule, but for the order of the register."""
        rounding = [*ROUNDED.values()].index(self.operands) + 1 if self.operands else 0
        return len(self.mistakes), rounding, not self.same_bits, not self.sharp, any(mistake.seldom or mistake.flickers for mistake in self.mistakes)


class Failure(NamedTuple):
    """A case, what came out of it, what should have, and the conventions declared."""

    case: Case
    actual: Outputs
    found: tuple[Truth, ...]
    declared: Declaration


def findings_of(case: Case, actual: Outputs, declared: Declaration, profile: Profile | None) -> list[Finding]:
    """All that matches one result, unless the right function does."""
    profile = profile or declared.profile(case.dtype)
    try:
        failure = Failure(case, actual, truths(case, declared, profile), declared)
    except ArgumentError:  # the right function refuses this
        return [Finding((mistake,), same_bits=True) for mistake in mistakes_of(case.op)
                if mistake.refused and same_bits(actual, mistaken([mistake], case))]
    if not _fails(failure, profile):
        return []
    singles = [(mistake,) for mistake in mistakes_of(case.op)]
    found = _matching(singles, failure, profile)
    for words, other in coarser_operands(case):
        if not found:
            try:
                rounded = Failure(other, actual, truths(other, declared, profile), declared)
            except ArgumentError:
                continue
            if not _fails(rounded, profile):
                return []
            if words in ROUNDED.values():  # all operands alike
                found = [dataclasses.replace(finding, operands=words) for finding in _matching(singles, rounded, profile)]
    return found or _matching(_pairs(case), failure, profile)


def _fails(failure: Failure, profile: Profile) -> bool:
    """Whether the result is wrong: of another shape, or with an element beyond its bound."""
    return _misshapen(failure) or any(mask.any() for mask in _wrong_elements(failure, profile))


def _misshapen(failure: Failure) -> bool:
    return [y.shape for y in failure.actual] != [truth.value.shape for truth in failure.found]


def _wrong_elements(failure: Failure, profile: Profile) -> list[NDArray[np.bool_]]:
    exact = allows_no_error(failure.case, profile)
    return [grades(y, truth, exact)[0] == GRADES.index(Level.FAIL) for y, truth in zip(failure.actual, failure.found, strict=True)]


def _pairs(case: Case) -> list[tuple[Mistake, ...]]:
    """Two mistakes, one inside the other, those first that come early in the register.

    Most have the same result either way round, so only one of the two is tried.
    """
    if sum(array.size for array in case.arrays().values()) > LARGEST:
        return []
    known = mistakes_of(case.op)
    outer = [outermost(mistake, case) for mistake in known]
    places = [(i, j) for j in range(len(known)) for i in range(j)]
    places.sort(key=sum)
    return [(known[i], known[j]) if outer[i] else (known[j], known[i]) for i, j in places if outer[i] or outer[j]][:MOST_PAIRS]


def _matching(candidates: Iterable[tuple[Mistake, ...]], failure: Failure, profile: Profile) -> list[Finding]:
    found = [match(mistakes, failure, profile) for mistakes in candidates]
    return [finding for finding in found if finding is not None]


def match(mistakes: tuple[Mistake, ...], failure: Failure, profile: Profile) -> Finding | None:
    """The finding, if the mistakes give this result."""
    case, actual, found, declared = failure
    outputs = mistaken(mistakes, case, declared)
    if outputs is None or not _nearly(actual, outputs):
        return None
    if same_bits(actual, outputs):
        return Finding(mistakes, same_bits=True)
    lifted = balls(mistakes, case, profile, declared)
    if lifted is None or _misshapen(failure):
        return None
    told = sharp = False
    for y, ball, truth, wrong in zip(actual, lifted, found, _wrong_elements(failure, profile), strict=True):
        limit = _limit(y, ball)
        if not _inside(y, ball, limit):
            return None
        with np.errstate(all="ignore"):
            told |= bool((wrong & (np.isfinite(limit) | ~np.isfinite(ball.value))).any())
            sharp |= bool((wrong & ~(np.abs(ball.value - truth.value) <= limit)).any())
    return Finding(mistakes, sharp=sharp) if told and (sharp or not _right_matches(failure, profile)) else None


def _right_matches(failure: Failure, profile: Profile) -> bool:
    """Whether the right function would match by the same rule, so that a mistake that does nothing here would."""
    lifted = balls((), failure.case, profile, failure.declared)
    return lifted is not None and all(_inside(y, ball, _limit(y, ball)) for y, ball in zip(failure.actual, lifted, strict=True))


def _limit(y: Array, ball: Ball) -> Array:
    """How far apart two results of one formula are: twice its radius, and the rounding to the judged format."""
    with np.errstate(all="ignore"):
        return 2 * ball.radius + unit(y.dtype.name) * (np.abs(ball.value) + ball.radius) + smallest(y.dtype.name)


def _inside(y: Array, ball: Ball, limit: Array) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.where(np.isfinite(ball.value), np.abs(y.astype(np.float64) - ball.value) <= limit, _equal(y, ball.value)).all())


def _equal(y: Array, value: Array) -> NDArray[np.bool_]:
    return (y.astype(np.float64) == value) | (np.isnan(y.astype(np.float64)) & np.isnan(value))


def are_floats(outputs: Outputs) -> bool:
    """Whether results have judged formats: what a target makes of integers or complex numbers is a fault by itself, and nothing to compare."""
    return all(y.dtype.name in FORMATS for y in outputs)


def same_bits(actual: Outputs, outputs: Outputs | None) -> bool:
    """Equal everywhere; one zero or NaN is like another."""
    return outputs is not None and [y.shape for y in actual] == [y.shape for y in outputs] and all(
        np.array_equal(y.astype(np.float64), other.astype(np.float64), equal_nan=True) for y, other in zip(actual, outputs, strict=True))


def _nearly(actual: Outputs, outputs: Outputs) -> bool:
    """The same shapes, NaN and infinities, and elsewhere differences below 2^(-p/2) of the largest element."""
    if [y.shape for y in actual] != [y.shape for y in outputs]:
        return False
    for y, other in zip(actual, outputs, strict=True):
        wide, guess = y.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(wide)
        if not (_equal(y, guess) | (finite & np.isfinite(guess))).all():
            return False
        if not (np.abs(wide[finite] - guess[finite]) <= half_the_digits(y)).all():
            return False
    return True


def half_the_digits(y: Array) -> float:
    """2^(-p/2) of the largest finite element."""
    wide = y.astype(np.float64)
    return float(2.0 ** (-FORMATS[y.dtype.name].precision / 2) * np.abs(wide[np.isfinite(wide)]).max(initial=0))


def shows(finding: Finding, case: Case, declared: Declaration, profile: Profile | None) -> bool:
    """Whether a case would have shown the mistakes of a finding."""
    outputs = mistaken(finding.mistakes, case, declared)
    visible = all(is_visible(mistake, case) for mistake in finding.mistakes)
    return visible and outputs is not None and not is_right(case, outputs, declared, profile)


def is_right(case: Case, outputs: Outputs, declared: Declaration, profile: Profile | None) -> bool:
    """Whether results are within the bounds of the declared arithmetic."""
    try:
        found = truths(case, declared, profile or declared.profile(case.dtype))
    except ArgumentError:
        return False
    return within(outputs, found)
