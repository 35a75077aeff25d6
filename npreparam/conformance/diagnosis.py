"""Which known mistakes a wrong result looks like.

A mistake *matches* a result when it gives the same bits in the judged format, or when every element lies within the radius that the declared
profile allows around the mistaken value (see `mistakes._ball`), and at least half the digits of the largest element are the same: fewer are
no evidence. Tried are, until something matches: single mistakes; single mistakes of operands rounded to a coarser format; two mistakes, one
inside the other. A result that the right function gives, of these operands or of rounded ones, has no diagnosis.

Ranking: fewer mistakes first; then operands as they are before rounded ones, finest first; then the same bits; then mistaken values that are
told from the truth by more than their radius; then usual mistakes before the `seldom` ones; then the order of the register. Findings that only
the last tells apart are `alike`: the input does not decide between them. Where the target may be asked again, it is given the inputs on which
they differ most.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam.certified.bounds import Profile
from npreparam.certified.bounds.profile import FORMATS, smallest, unit
from npreparam.conformance import relations
from npreparam.conformance.case import Case, Key
from npreparam.conformance.cases import make_case
from npreparam.conformance.explain import ROUNDED, rounded_operands
from npreparam.conformance.grade import GRADES, Level, grades, within
from npreparam.conformance.mistakes import MISTAKES, Mistake, balls, mistaken, mistakes_of, pinned_cases
from npreparam.conformance.mistakes._evaluate import outermost
from npreparam.conformance.mistakes._trial import in_dtype, is_visible
from npreparam.conformance.runner import InProcess, Runner
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import Truth, truths

Array = NDArray[Any]
Outputs = tuple[Array, ...]
Ask = Callable[[Case], Outputs | None]

MOST_PAIRS = 2000  # of mistakes, tried on one result
LARGEST = 2**16  # elements of the arguments beyond which pairs are not tried
PROBES = 12  # drawn cases of each kind among the questions, beside the pinned ones
QUESTIONS = 3  # put to a target to decide between mistakes
ORDER = {mistake: place for place, mistake in enumerate(MISTAKES.values())}


@dataclass(frozen=True, slots=True)
class Finding:
    """A known mistake, or two of which the second is inside the first, that explains a result.

    `operands` says what they were rounded to, if anything; `same_bits` whether the results are equal; `alike` names what the input does not
    tell from it.
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
        return len(self.mistakes), rounding, not self.same_bits, not self.sharp, any(mistake.seldom for mistake in self.mistakes)


class Failure(NamedTuple):
    """A case, what came out of it, and what should have."""

    case: Case
    actual: Outputs
    found: tuple[Truth, ...]


def diagnose(case: Case, actual: Any, profile: Profile | None = None, *, declaration: Declaration | None = None,
             ask: Ask | None = None) -> list[Finding]:
    """The known mistakes that a wrong result looks like, best first; none where it is right.

    `actual` is the result, or a tuple of them. `ask`, if given, puts further cases to the same target (see `asking`).

    >>> x, w = np.float32([[[[1, 2]]]]), np.float32([[[[3, 5]]]])
    >>> [finding.name for finding in diagnose(Case("conv2d", {"x": x, "w": w}), np.float32([[[[11]]]]))]    # 1*5 + 2*3
    ['kernel flipped in width', 'input stride of -1', 'kernel flipped']
    """
    return diagnose_all([(case, actual)], profile, declaration=declaration, ask=ask)


def diagnose_all(failures: Iterable[tuple[Case, Any]], profile: Profile | None = None, *, declaration: Declaration | None = None,
                 ask: Ask | None = None, passed: Sequence[Case] = ()) -> list[Finding]:
    """The known mistakes that explain all wrong results of one function, or, where none does, as many as possible.

    A mistake that one of the `passed` cases would have shown is ruled out. Raises ArgumentError for cases of several functions.
    """
    declared = declaration or Declaration("")
    failures = list(failures)
    if len({case.op for case, _ in failures} | {case.op for case in passed}) > 1:
        raise ArgumentError("`failures` and `passed` must be cases of one function; diagnose each function by itself")
    seen: dict[Any, list[Finding]] = {}
    for case, actual in failures:
        for finding in _findings(case, _as_tuple(actual), declared, profile):
            seen.setdefault(finding.key, []).append(finding)
    most = max(map(len, seen.values()), default=0)
    worst = [max(several, key=lambda finding: finding.rank) for several in seen.values() if len(several) == most]
    kept = [finding for finding in worst if not any(_shows(finding, case, declared, profile) for case in passed)]
    if ask is not None and len(kept) > 1:
        kept = _decided(kept, failures[0][0], ask, declared, profile)
    kept.sort(key=lambda finding: (finding.rank, [ORDER[mistake] for mistake in finding.mistakes]))
    return [dataclasses.replace(finding, alike=tuple(other.name for other in kept if other is not finding and other.rank == finding.rank))
            for finding in kept]


def asking(target: Any) -> Ask:
    """What puts further cases to a target, a Runner or whatever `Target.of` takes, for `diagnose`."""
    runner: Runner = target if hasattr(target, "ask") else InProcess(target)

    def ask(case: Case) -> Outputs | None:
        answers = relations.ask(case, runner)
        return None if answers.refusal is not None else answers.outputs[-1]

    return ask


def _as_tuple(actual: Any) -> Outputs:
    return tuple(map(np.asarray, actual)) if isinstance(actual, tuple | list) else (np.asarray(actual),)


def _findings(case: Case, actual: Outputs, declared: Declaration, profile: Profile | None) -> list[Finding]:
    """All that matches one result, unless the right function does."""
    profile = profile or declared.profile(case.dtype)
    try:
        failure = Failure(case, actual, truths(case, declared, profile))
    except ArgumentError:  # the right function refuses this
        return [Finding((mistake,), same_bits=True) for mistake in mistakes_of(case.op)
                if mistake.refused and _same_bits(actual, mistaken([mistake], case))]
    if not _fails(failure):
        return []
    singles = [(mistake,) for mistake in mistakes_of(case.op)]
    found = _matching(singles, failure, profile)
    for form, words in ROUNDED.items():
        if not found and (other := rounded_operands(case, form)) is not None:
            try:
                rounded = Failure(other, actual, truths(other, declared, profile))
            except ArgumentError:
                continue
            if not _fails(rounded):
                return []
            found = [dataclasses.replace(finding, operands=words) for finding in _matching(singles, rounded, profile)]
    return found or _matching(_pairs(case), failure, profile)


def _fails(failure: Failure) -> bool:
    """Whether the result is wrong: of another shape, or with an element beyond its bound."""
    return _misshapen(failure) or any(mask.any() for mask in _wrong_elements(failure))


def _misshapen(failure: Failure) -> bool:
    return [y.shape for y in failure.actual] != [truth.value.shape for truth in failure.found]


def _wrong_elements(failure: Failure) -> list[NDArray[np.bool_]]:
    return [grades(y, truth, failure.case.exact)[0] == GRADES.index(Level.FAIL) for y, truth in zip(failure.actual, failure.found, strict=True)]


def _pairs(case: Case) -> list[tuple[Mistake, ...]]:
    """Two mistakes, the second inside the first; those that cancel or do nothing are found out by trying."""
    if sum(array.size for array in case.arrays().values()) > LARGEST:
        return []
    known = mistakes_of(case.op)
    return [(outer, inner) for outer in known if outermost(outer, case) for inner in known if inner is not outer][:MOST_PAIRS]


def _matching(candidates: Iterable[tuple[Mistake, ...]], failure: Failure, profile: Profile) -> list[Finding]:
    found = [_match(mistakes, failure, profile) for mistakes in candidates if all(is_visible(mistake, failure.case) for mistake in mistakes)]
    return [finding for finding in found if finding is not None]


def _match(mistakes: tuple[Mistake, ...], failure: Failure, profile: Profile) -> Finding | None:
    """The finding, if the mistakes give this result."""
    case, actual, found = failure
    outputs = mistaken(mistakes, case)
    if outputs is None or not _half_the_digits(actual, outputs):
        return None
    if _same_bits(actual, outputs):
        return Finding(mistakes, same_bits=True)
    lifted = balls(mistakes, case, profile)
    if lifted is None or _misshapen(failure):
        return None
    told = sharp = False
    for y, ball, truth, wrong in zip(actual, lifted, found, _wrong_elements(failure), strict=True):
        with np.errstate(all="ignore"):  # both are results of the mistaken formula: twice its radius, and the rounding to the judged format
            limit = 2 * ball.radius + unit(y.dtype.name) * (np.abs(ball.value) + ball.radius) + smallest(y.dtype.name)
            inside = np.where(np.isfinite(ball.value), np.abs(y.astype(np.float64) - ball.value) <= limit, _equal(y, ball.value))
            told |= bool((wrong & np.isfinite(limit)).any())
            sharp |= bool((wrong & ~(np.abs(ball.value - truth.value) <= limit)).any())
        if not inside.all():
            return None
    return Finding(mistakes, sharp=sharp) if told else None


def _equal(y: Array, value: Array) -> NDArray[np.bool_]:
    return (y.astype(np.float64) == value) | (np.isnan(y.astype(np.float64)) & np.isnan(value))


def _same_bits(actual: Outputs, outputs: Outputs | None) -> bool:
    """Equal everywhere; one zero or NaN is like another."""
    return outputs is not None and [y.shape for y in actual] == [y.shape for y in outputs] and all(
        np.array_equal(y.astype(np.float64), other.astype(np.float64), equal_nan=True) for y, other in zip(actual, outputs, strict=True))


def _half_the_digits(actual: Outputs, outputs: Outputs) -> bool:
    """The same shapes, NaN and infinities, and elsewhere differences below 2^(-p/2) of the largest element."""
    if [y.shape for y in actual] != [y.shape for y in outputs]:
        return False
    for y, other in zip(actual, outputs, strict=True):
        wide, guess = y.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(wide)
        if not (_equal(y, guess) | (finite & np.isfinite(guess))).all():
            return False
        allowed = 2.0 ** (-FORMATS[y.dtype.name].precision / 2) * np.abs(wide[finite]).max(initial=0)
        if not (np.abs(wide[finite] - guess[finite]) <= allowed).all():
            return False
    return True


def _shows(finding: Finding, case: Case, declared: Declaration, profile: Profile | None) -> bool:
    """Whether a case would have shown the mistakes of a finding."""
    outputs = mistaken(finding.mistakes, case)
    visible = all(is_visible(mistake, case) for mistake in finding.mistakes)
    return visible and outputs is not None and not _is_right(case, outputs, declared, profile)


def _is_right(case: Case, outputs: Outputs, declared: Declaration, profile: Profile | None) -> bool:
    try:
        found = truths(case, declared, profile or declared.profile(case.dtype))
    except ArgumentError:
        return False
    return [y.shape for y in outputs] == [truth.value.shape for truth in found] and within(outputs, found)


def _decided(findings: list[Finding], case: Case, ask: Ask, declared: Declaration, profile: Profile | None) -> list[Finding]:
    """The findings that further answers of the target bear out: of the inputs at hand, those on which most of them differ are tried."""
    flicker = _flickers(case, ask)
    if flicker is not None:
        findings = [finding for finding in findings if any(mistake.flickers for mistake in finding.mistakes) == flicker]
    pool = [in_dtype(other, case.dtype) for other in pinned_cases(case.op)]
    pool += [make_case(Key(case.op, phase, case.dtype, 0, index)) for phase, index in itertools.product(("geometry", "random"), range(PROBES))]
    for _ in range(QUESTIONS):
        signs = [len({_signature(finding, other) for finding in findings}) for other in pool]
        if len(findings) < 2 or max(signs, default=1) < 2:
            break
        other = pool.pop(int(np.argmax(signs)))
        actual = ask(other)
        if actual is not None:
            findings = [finding for finding in findings if _agrees(finding, other, actual, declared, profile)]
    return findings


def _flickers(case: Case, ask: Ask) -> bool | None:
    """Whether the same question has different answers; None if it has none."""
    answers = [ask(dataclasses.replace(case, relation="")) for _ in range(3)]
    if any(answer is None for answer in answers):
        return None
    return not all(_same_bits(answers[0], answer) for answer in answers[1:])  # type: ignore[arg-type]


def _signature(finding: Finding, case: Case) -> Any:
    outputs = mistaken(finding.mistakes, case)
    return None if outputs is None else tuple((y.shape, (y + 0).tobytes()) for y in outputs)


def _agrees(finding: Finding, case: Case, actual: Outputs, declared: Declaration, profile: Profile | None) -> bool:
    """Whether an answer is what the mistakes give: a right one where they do not show, else a match."""
    if _is_right(case, actual, declared, profile):
        return not _shows(finding, case, declared, profile)
    rounded = next((form for form, words in ROUNDED.items() if words == finding.operands), None)
    case = (rounded_operands(case, rounded) or case) if rounded else case
    used = profile or declared.profile(case.dtype)
    return _match(finding.mistakes, Failure(case, actual, truths(case, declared, used)), used) is not None
