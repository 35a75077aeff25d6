"""Which known mistakes a wrong result looks like.

A mistake *matches* a result when it gives the same bits in the judged format, or when every element lies within the radius that the declared
profile allows around the mistaken value (see `mistakes._ball`), and at least half the digits of the largest element are the same: fewer are
no evidence. Tried are, until something matches: single mistakes; single mistakes of operands rounded to a coarser format; two mistakes, one
inside the other. A result that the right function gives, of these operands or of rounded ones, has no diagnosis.

Ranking: fewer mistakes first; then operands as they are before rounded ones, finest first; then the same bits; then mistaken values that are
told from the truth by more than their radius; then usual mistakes before races and the `seldom` ones; then the order of the register. Findings
that only the last tells apart are `alike`: the input does not decide between them. Where the target may be asked again, it is given the inputs on
which they differ most, and what its answers refute is dropped.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.certified.bounds import Profile
from npreparam.conformance.case import Case
from npreparam.conformance.explain import explaining_operands
from npreparam.conformance.matching import Finding, Outputs, are_floats, findings_of, shows
from npreparam.conformance.mistakes import MISTAKES
from npreparam.conformance.questions import Ask, asking, decided
from npreparam.conformance.target import Declaration

__all__ = ["Finding", "asking", "diagnose", "diagnose_all"]

ORDER = {mistake: place for place, mistake in enumerate(MISTAKES.values())}


def diagnose(case: Case, actual: Any, profile: Profile | None = None, *, declaration: Declaration | None = None,
             ask: Ask | None = None) -> list[Finding]:
    """The known mistakes that a wrong result looks like, best first; none where it is right.

    `actual` is the result, or a tuple of them. `ask`, if given, puts further cases to the same target (see `asking`).

    >>> x, w = np.float32([[[[1, 2]]]]), np.float32([[[[3, 5]]]])
    >>> [finding.name for finding in diagnose(Case("conv2d", {"x": x, "w": w}), np.float32([[[[11]]]]))]    # 1*5 + 2*3
    ['kernel flipped', 'kernel flipped in width']
    """
    return diagnose_all([(case, actual)], profile, declaration=declaration, ask=ask)


def diagnose_all(failures: Iterable[tuple[Case, Any]], profile: Profile | None = None, *, declaration: Declaration | None = None,
                 ask: Ask | None = None, passed: Sequence[Case] = ()) -> list[Finding]:
    """The known mistakes that explain all wrong results of one function, or, where none does, as many as possible.

    A mistake that one of the `passed` cases would have shown is ruled out; and all are where the right function of rounded operands explains more
    of them. Raises ArgumentError for cases of several functions.

    >>> x, row, column = np.float32([[[[1, 2], [3, 4]]]]), np.float32([[[[3, 5]]]]), np.float32([[[[3], [5]]]])
    >>> across, down = (Case("conv2d", {"x": x, "w": w}) for w in (row, column))
    >>> [finding.name for finding in diagnose_all([(across, np.float32([[[[11], [27]]]]))], passed=[down])]    # a kernel of one column came out right
    ['kernel flipped in width']
    """
    declared = declaration or Declaration("")
    failures = [(case, _as_tuple(actual)) for case, actual in failures]
    if len({case.op for case, _ in failures} | {case.op for case in passed}) > 1:
        raise ArgumentError("`failures` and `passed` must be cases of one function; diagnose each function by itself")
    failures = [(case, outputs) for case, outputs in failures if are_floats(outputs)]
    seen: dict[Any, list[Finding]] = {}
    for case, outputs in failures:
        for finding in findings_of(case, outputs, declared, profile):
            seen.setdefault(finding.key, []).append(finding)
    most = max(map(len, seen.values()), default=0)
    if most < len(failures) and _by_operands(failures, declared, profile) > most:
        return []
    worst = [max(several, key=lambda finding: finding.rank) for several in seen.values() if len(several) == most]
    kept = [finding for finding in worst if not any(shows(finding, case, declared, profile) for case in passed)]
    if ask is not None and kept:
        kept = decided(kept, failures[0][0], ask, declared, profile)
    kept.sort(key=lambda finding: (finding.rank, [ORDER[mistake] for mistake in finding.mistakes]))
    return [dataclasses.replace(finding, alike=tuple(other.name for other in kept if other is not finding and other.rank == finding.rank))
            for finding in kept]


def _by_operands(failures: Iterable[tuple[Case, Outputs]], declared: Declaration, profile: Profile | None) -> int:
    """How many results the right function gives of operands that are rounded in one way."""
    counts = Counter(words for case, outputs in failures if not case.refused
                     for words in explaining_operands(case, outputs, declared, profile or declared.profile(case.dtype)))
    return max(counts.values(), default=0)


def _as_tuple(actual: Any) -> Outputs:
    return tuple(map(np.asarray, actual)) if isinstance(actual, tuple | list) else (np.asarray(actual),)
