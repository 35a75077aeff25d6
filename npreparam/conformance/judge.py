"""From a case and a target to a verdict.

Every element of every answer is EXACT (the correctly rounded value), OK (within the sound bound of the declared arithmetic), SUSPECT (beyond
what is likely for it) or FAIL (beyond the bound, or NaN or an infinity where there is none, or the other way round). The case is as bad as its
worst element. Where the case is `exact` and the algorithm direct, all but EXACT is FAIL.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam.certified.bounds import Profile
from npreparam.certified.bounds.profile import FORMATS, is_value_of
from npreparam.conformance import relations
from npreparam.conformance.case import Case, Level, Verdict
from npreparam.conformance.runner import InProcess, Runner
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import Truth, around, explaining_profiles, truths, try_bound

Array = NDArray[Any]
LARGEST_RATIO = 1e300  # stands for infinity, which JSON does not have
GRADES = (Level.EXACT, Level.OK, Level.SUSPECT, Level.FAIL)


def judge_case(case: Case, target: Any, profile: Profile | None = None) -> Verdict:
    """The verdict on one case; `target` is a Runner or whatever `Target.of` takes, `profile` replaces the declared one.

    Never raises for what the target does. Raises what `certified` raises for a case that is no valid question.

    >>> import types
    >>> case = Case("tanh", {"x": np.float64([0.5, 2.0])})
    >>> str(judge_case(case, types.SimpleNamespace(tanh=np.arctan)).level)
    'FAIL'
    """
    runner: Runner = target if hasattr(target, "ask") else InProcess(target)
    verdict = Verdict(Level.ABSENT, case.op, case.phase, case.dtype, case.name, case.key)
    refusal = refused(case, runner)
    if refusal:
        return dataclasses.replace(verdict, explanation=refusal)
    answers = relations.ask(case, runner)
    if answers.refusal is not None:
        return dataclasses.replace(verdict, level=answers.refusal.level, explanation=answers.refusal.explanation)
    profile = profile or runner.declaration.profile(case.dtype)
    found = truths(case, runner.declaration, profile)
    exact = case.exact and profile.algorithm == "direct"
    verdicts = [_of_outputs(verdict, outputs, found, exact) for outputs in answers.outputs]
    worst = max(range(len(verdicts)), key=lambda i: (_severity(verdicts[i]), verdicts[i].ratio))
    verdict = verdicts[worst]
    if answers.fault and verdict.conforms:
        verdict = dataclasses.replace(verdict, level=Level.FAIL, explanation=answers.fault)
    elif answers.suspicion and verdict.conforms:
        verdict = dataclasses.replace(verdict, level=Level.SUSPECT, explanation=answers.suspicion)
    return explained(verdict, case, answers.outputs[worst], found, runner.declaration, profile) if verdict.level is Level.FAIL else verdict


def refused(case: Case, runner: Runner) -> str:
    """Why a target need not answer a case: what it does not offer or declares unsupported; or ""."""
    declared = runner.declaration
    if case.op not in runner.offers:
        return "not offered"
    if case.dtype not in declared.dtypes:
        return f"does not take {case.dtype}"
    if case.layout != "contiguous" and case.layout not in declared.layouts:
        return f"does not take the layout {case.layout}"
    features = case.features()
    if "special values" in features and declared.profile(case.dtype).algorithm != "direct":
        return "a transform spreads NaN and infinities"
    lacking = declared.lacks(case.op, features)
    return f"declared unsupported: {lacking}" if lacking else ""


def _severity(verdict: Verdict) -> int:
    return list(Level).index(verdict.level)


def _of_outputs(verdict: Verdict, outputs: tuple[Array, ...], found: tuple[Truth, ...], exact: bool) -> Verdict:
    """The verdict on one set of results: that of the worst of them, with the counts of all."""
    fault = misshapen(outputs, found)
    if fault:
        return dataclasses.replace(verdict, level=Level.ERROR, explanation=fault)
    graded = [_of_output(verdict, actual, truth, exact) for actual, truth in zip(outputs, found, strict=True)]
    worst = max(graded, key=lambda v: (_severity(v), v.ratio))
    counts = {str(level): sum(v.counts[str(level)] for v in graded) for level in GRADES}
    return dataclasses.replace(worst, counts=counts)


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


def _of_output(verdict: Verdict, actual: Array, truth: Truth, exact: bool) -> Verdict:
    """The verdict on one result."""
    grade, ratio = grades(actual, truth, exact)
    counts = {str(level): int((grade == i).sum()) for i, level in enumerate(GRADES)}
    if not actual.size:
        return dataclasses.replace(verdict, level=Level.EXACT, output=truth.name, counts=counts)
    worst = int(np.lexsort((ratio.ravel(), grade.ravel()))[-1])
    index = tuple(map(int, np.unravel_index(worst, actual.shape)))
    level = GRADES[int(grade[index])]
    verdict = dataclasses.replace(
        verdict, level=level, ulp=0.0 if level is Level.EXACT or np.isinf(truth.bound[index]) else float(ulps(actual, truth)[index]),
        ratio=min(float(ratio[index]), LARGEST_RATIO), output=truth.name, index=index,
        expected=float(truth.rounded[index]), actual=float(actual[index]), counts=counts)
    return verdict if level is not Level.FAIL else dataclasses.replace(verdict, explanation=_in_words(verdict, actual, truth, exact))


def _in_words(verdict: Verdict, actual: Array, truth: Truth, exact: bool) -> str:
    wrong, total = verdict.counts["FAIL"], actual.size
    with np.errstate(invalid="ignore"):
        if np.isnan(actual).all() and not np.isnan(truth.rounded).all():
            return f"every element of `{truth.name}` is NaN"
    place = f"{truth.name}{list(verdict.index)} is {verdict.actual!r} instead of {verdict.expected!r}"
    why = "where every order of summation is exact" if exact else f"{verdict.ratio:.3g} times the bound"
    if verdict.ratio == LARGEST_RATIO and not exact:
        why = "which no rounding explains"
    return f"{wrong} of {total} elements: {place}, {why}"


def explained(verdict: Verdict, case: Case, outputs: tuple[Array, ...], found: tuple[Truth, ...], declaration: Declaration,
              profile: Profile) -> Verdict:
    """A FAIL with the tightest other arithmetic that explains it, or else the known mistakes that it looks like."""
    name = explaining_profile(case, outputs, found, declaration, profile)
    if name:
        return dataclasses.replace(verdict, profile=name, explanation=f"{verdict.explanation}; consistent with {name}")
    try:
        from npreparam.conformance.diagnosis import diagnose
    except ImportError:
        return verdict
    actual = outputs if len(outputs) > 1 else outputs[0]
    return dataclasses.replace(verdict, diagnosis=tuple(str(found) for found in diagnose(case, actual, profile)))


def explaining_profile(case: Case, outputs: tuple[Array, ...], found: tuple[Truth, ...], declaration: Declaration, profile: Profile) -> str:
    """The name of the arithmetic with the smallest bounds, of those within which all results are; or ""."""
    fits = []
    for name, other in explaining_profiles(profile, case.dtype):
        if case.exact and other.algorithm == "direct" and not _rounds_operands(case, other):
            continue
        declared = dataclasses.replace(declaration, variance="one_pass") if name == "one-pass variance" else declaration
        limits = try_bound(case.op, case.arguments, other, declared)
        if limits is None or any((np.isinf(limit) & np.isfinite(truth.bound)).any() for limit, truth in zip(limits, found, strict=True)):
            continue
        limits = around(tuple(truth.value for truth in found), limits)
        wider = [truth._replace(bound=limit, likely=limit) for truth, limit in zip(found, limits, strict=True)]
        if all((grades(actual, truth)[0] < GRADES.index(Level.FAIL)).all() for actual, truth in zip(outputs, wider, strict=True)):
            fits.append((sum(float(np.sum(limit)) for limit in limits), len(fits), name))
    return min(fits)[2] if fits else ""


def _rounds_operands(case: Case, profile: Profile) -> bool:
    """Whether some operand is no number of the profile's input format."""
    return not all(is_value_of(array.astype(np.float64), profile.input_rounding).all() for array in case.arrays().values())
