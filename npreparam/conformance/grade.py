"""The grades of single elements: EXACT, OK, SUSPECT or FAIL."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam.certified.bounds import Profile
from npreparam.certified.bounds.profile import FORMATS, is_value_of
from npreparam.conformance.case import Case, Level
from npreparam.conformance.truth import Truth

Array = NDArray[Any]
LARGEST_RATIO = 1e300  # stands for infinity, which JSON does not have
GRADES = (Level.EXACT, Level.OK, Level.SUSPECT, Level.FAIL)


def misshapen(outputs: tuple[Any, ...], found: tuple[Truth, ...]) -> str:
    """What is wrong with the number, shapes or dtypes of results; or ""."""
    if len(outputs) != len(found):
        return f"returns {len(outputs)} results, but there must be {len(found)}: {', '.join(truth.name for truth in found)}"
    for actual, truth in zip(outputs, found, strict=True):
        if actual.shape != truth.rounded.shape:
            return f"`{truth.name}` has shape {actual.shape}, but must have shape {truth.rounded.shape}"
        if actual.dtype != truth.rounded.dtype:
            return f"`{truth.name}` has dtype {actual.dtype}, but must have dtype {truth.rounded.dtype}, that of the arguments"
    return ""


def allows_no_error(case: Case, profile: Profile) -> bool:
    """Whether the arithmetic of a profile has nothing to round in an `exact` case: direct sums, operands that are numbers of its input format,
    and an accumulator and an output as wide as the format that the case is exact in."""
    if not case.exact or profile.algorithm != "direct":
        return False
    narrowest = min(FORMATS[form].precision for form in (profile.accumulator, profile.output))
    return narrowest >= FORMATS[case.dtype].precision and all(
        is_value_of(array.astype(np.float64), profile.input_rounding).all() for array in case.arrays().values())


def grades(actual: Array, truth: Truth, exact: bool = False) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """(index into GRADES, error/bound) of every element; the latter infinite where NaN or an infinity is out of place."""
    with np.errstate(all="ignore"):
        wide, rounded = actual.astype(np.float64), truth.rounded.astype(np.float64)
        same = (wide == rounded) | (np.isnan(wide) & np.isnan(rounded))
        error = np.abs(wide - truth.value)
        undecided = np.isinf(truth.bound)
        ratio = np.where(error == 0, 0.0, error / truth.bound)
        strange = ~(np.isfinite(wide) & np.isfinite(truth.value))
        ratio = np.where(same | undecided, np.where(strange | undecided, 0.0, ratio), np.where(strange, np.inf, ratio))
        doubtful = (error > truth.likely) & ~undecided
    grade = np.where(ratio > 1, 3, np.where(doubtful, 2, 1))
    if exact:
        grade = np.where(undecided, 1, 3)
    return np.where(same, 0, grade).astype(np.int8), ratio


def ulps(actual: Array, truth: Truth) -> NDArray[np.float64]:
    """|actual - expected| in units in the last place of the dtype, at the expected value."""
    form = FORMATS[truth.rounded.dtype.name]
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(np.where(np.isfinite(truth.value), truth.value, 0))[1] - 1, form.e_min)
        found = np.abs(actual.astype(np.float64) - truth.value) / np.ldexp(1.0, exponent - form.precision + 1)
    return np.where(np.isfinite(found), found, LARGEST_RATIO)


def within(outputs: tuple[Array, ...], found: tuple[Truth, ...]) -> bool:
    """Whether the shapes are right, and no element of any result is a FAIL."""
    return [y.shape for y in outputs] == [truth.rounded.shape for truth in found] and all(
        (grades(actual, truth)[0] < GRADES.index(Level.FAIL)).all() for actual, truth in zip(outputs, found, strict=True))
