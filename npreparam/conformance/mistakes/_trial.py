"""Mistakes put on trial: as targets, and as a measure of what a set of cases can find."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import fuse, ops
from npreparam.certified.bounds import Profile
from npreparam.conformance.case import Case, Level
from npreparam.conformance.grade import GRADES, allows_no_error, grades
from npreparam.conformance.mistakes._evaluate import mistaken, wrong
from npreparam.conformance.mistakes._registry import MISTAKES, Mistake, mistakes_of
from npreparam.conformance.signatures import OPS, PARAMETERS
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import Truth, UnboundedError, truths
from npreparam.exact.rounding import dtype_of

Array = NDArray[Any]


def as_target(*mistakes: Mistake) -> SimpleNamespace:
    """The right functions, one of them replaced by a mistake, or by one with others inside: an object that the judge takes as a target.

    >>> from npreparam.conformance.mistakes import mistake_named
    >>> target = as_target(mistake_named("softplus", "base 2"))
    >>> target.softplus(np.zeros(1)), target.tanh(np.zeros(1))
    (array([1.]), array([0.]))
    """
    first, calls = mistakes[0], itertools.count()
    right = {op: getattr(fuse if op.startswith("fuse") else ops, op) for op in OPS}

    def function(*args: Any, **kwargs: Any) -> Any:
        if first.flickers and next(calls) % 4 < 2:  # so that calls two apart differ, as the relation "repeat" makes them
            return right[first.op](*args, **kwargs)
        out = kwargs.pop("out", None)
        given = {**dict(zip(PARAMETERS[first.op], args, strict=False)), **kwargs}
        results = wrong(mistakes, first.op, given if out is None or first.relation != "prefilled" else {**given, "out": out})
        return results if len(results) > 1 else results[0]

    out = (first.op,) if first.relation == "prefilled" else ()
    return SimpleNamespace(**{**right, first.op: function}, declaration=Declaration(f"{first.op}: {', '.join(map(str, mistakes))}", out=out))


def pinned_cases(op: str, refused: bool = False) -> list[Case]:
    """The examples of all known mistakes of a function: small inputs, each of which has shown a fault.

    Those that the right function refuses come last, or are left out unless `refused`.

    >>> from npreparam.conformance.mistakes import pinned_cases
    >>> [case.name for case in pinned_cases("tanh")]
    ['overflows', 'cancels near 0', 'x itself, cut at 1', 'of x/2', 'of 2x', 'sigmoid']
    """
    found = [mistake.case for mistake in mistakes_of(op)]
    return [case for case in found if not case.refused] + [case for case in found if case.refused and refused]


def refused_mistakes(case: Case, outputs: tuple[Array, ...]) -> tuple[str, ...]:
    """The known mistakes that give these results where the right function gives none.

    >>> from npreparam.conformance.mistakes import pinned_cases
    >>> case = next(case for case in pinned_cases("batch_norm", refused=True) if case.refused)
    >>> refused_mistakes(case, (np.zeros(3),))
    ()
    """
    found = []
    for mistake in mistakes_of(case.op):
        wrongly = mistaken([mistake], case) if mistake.refused else None
        if wrongly is not None and len(wrongly) == len(outputs) and all(
                a.shape == b.shape and (np.isnan(a) == np.isnan(b)).all() for a, b in zip(wrongly, outputs, strict=True)):
            found.append(f"{mistake.name}; look at: {mistake.look}")
    return tuple(found)


def in_dtype(case: Case, dtype: str) -> Case:
    """The case with its float arrays in another dtype.

    >>> in_dtype(Case("tanh", {"x": np.float32([1])}), "float64").dtype
    'float64'
    """
    def converted(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(converted, value))
        return value.astype(dtype_of(dtype)) if isinstance(value, np.ndarray) and value.dtype.kind not in "iub" else value

    return dataclasses.replace(case, arguments={name: converted(value) for name, value in case.arguments.items()})


def differs(outputs: tuple[Array, ...] | None, found: tuple[Truth, ...], exact: bool = False) -> bool:
    """Whether results are impossible: of another number or shape, or somewhere beyond the bound; no results are no difference."""
    if outputs is None:
        return False
    if [y.shape for y in outputs] != [truth.value.shape for truth in found]:
        return True
    return any((grades(y, truth, exact)[0] == GRADES.index(Level.FAIL)).any() for y, truth in zip(outputs, found, strict=True))


def caught(cases: Iterable[Case], profile: Profile | None = None, declaration: Declaration | None = None) -> list[Mistake]:
    """The known mistakes that these cases would have found: those with a result beyond the bound in one of them.

    `profile` replaces the declared arithmetic. Mistakes follow the usual conventions, whatever is declared.

    >>> x, w = np.float32([[[[1, 2]]]]), np.ones((1, 1, 1, 2), np.float32)
    >>> flipped = "kernel flipped in width"
    >>> [flipped in map(str, caught([Case("conv2d", {"x": x, "w": kernel})])) for kernel in (w, x)]    # ones do not tell
    [False, True]
    """
    declared = dataclasses.replace(declaration or Declaration(""), running_variance="unbiased", conventions={})
    found: set[Mistake] = set()
    for case in cases:
        open_ = [mistake for mistake in mistakes_of(case.op) if mistake not in found]
        if not open_:
            continue
        if case.refused:
            found.update(mistake for mistake in open_ if mistake.refused and mistaken([mistake], case) is not None)
            continue
        used = profile or declared.profile(case.dtype)
        try:
            right, exact = truths(case, declared, used), allows_no_error(case, used)
        except UnboundedError:
            continue
        found.update(mistake for mistake in open_ if is_visible(mistake, case) and differs(mistaken([mistake], case), right, exact))
    return [mistake for mistake in MISTAKES.values() if mistake in found]


def is_visible(mistake: Mistake, case: Case) -> bool:
    """Whether a case asks in the way that a mistake needs: twice for one that flickers, with a filled buffer for one that reads it."""
    if mistake.flickers:
        return case.relation in ("repeat", "adjoint")
    return mistake.relation != "prefilled" or case.relation == "prefilled"
