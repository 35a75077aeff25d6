"""From a case and a target to a verdict.

Every element of every answer is EXACT (the correctly rounded value), OK (within the sound bound of the declared arithmetic), SUSPECT (beyond
what is likely for it) or FAIL (beyond the bound, or NaN or an infinity where there is none, or the other way round). The case is as bad as its
worst element. Where the case is `exact`, and the declared arithmetic has nothing to round in it, all but EXACT is FAIL.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam.certified.bounds import Profile
from npreparam.conformance import relations
from npreparam.conformance.case import Case, Level, Verdict
from npreparam.conformance.explain import coarser_operands, explaining_profile
from npreparam.conformance.grade import GRADES, LARGEST_RATIO, allows_no_error, grades, misshapen, ulps
from npreparam.conformance.runner import InProcess, Runner, quietly
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import Truth, UnboundedError, meets_padding, truths

Array = NDArray[Any]


def judge_case(case: Case, target: Any, profile: Profile | None = None, explain: bool = True) -> Verdict:
    """The verdict on one case; `target` is a Runner or whatever `Target.of` takes, `profile` replaces the declared one.

    Without `explain` a FAIL has neither the arithmetic nor the known mistakes that would explain it, which take most of the time.

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
    if case.refused:
        return _of_refused(verdict, case, answers)
    if answers.refusal is not None:
        return dataclasses.replace(verdict, level=answers.refusal.level, explanation=answers.refusal.explanation)
    profile = profile or runner.declaration.profile(case.dtype)
    try:
        found = truths(case, runner.declaration, profile)
    except UnboundedError as error:
        return dataclasses.replace(verdict, explanation=str(error))
    exact = allows_no_error(case, profile)
    verdicts = [_of_outputs(verdict, outputs, found, exact) for outputs in answers.outputs]
    worst = max(range(len(verdicts)), key=lambda i: (_severity(verdicts[i]), verdicts[i].ratio))
    verdict = verdicts[worst]
    if answers.fault and verdict.conforms:
        verdict = dataclasses.replace(verdict, level=Level.FAIL, explanation=answers.fault)
    elif answers.suspicion and verdict.conforms:
        verdict = dataclasses.replace(verdict, level=Level.SUSPECT, explanation=answers.suspicion)
    if verdict.level is not Level.FAIL or not explain:
        return verdict
    return explained(verdict, case, answers.outputs[worst], found, runner.declaration, profile)


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
    if meets_padding(case) and declared.convention("infinity_on_padding") == "either":
        return "an infinity over padding counts nothing or is multiplied by zero: declared to be either"
    lacking = declared.lacks(case.op, features)
    return f"declared unsupported: {lacking}" if lacking else ""


def _of_refused(verdict: Verdict, case: Case, answers: relations.Answers) -> Verdict:
    """The verdict on a question that the reference refuses: whoever refuses it is right, whoever answers it with NaN is not."""
    from npreparam.conformance.mistakes import refused_mistakes  # which judges, too

    if answers.refusal is not None:
        reply = dataclasses.replace(verdict, level=answers.refusal.level or Level.ERROR, explanation=answers.refusal.explanation)
        return dataclasses.replace(reply, level=Level.EXACT) if reply.level is Level.ERROR and reply.raised else reply
    outputs = answers.outputs[0]
    if not any(np.isnan(y).any() for y in outputs if y.dtype.kind not in "iub"):
        return dataclasses.replace(verdict, level=Level.OK, explanation="an answer where the reference has none")
    with quietly():
        diagnosis = refused_mistakes(case, outputs)
    return dataclasses.replace(verdict, level=Level.FAIL, explanation="NaN where there is no answer: it should be refused", diagnosis=diagnosis)


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
    """A FAIL with the tightest other arithmetic that explains it, and, unless that is just coarser operands, the known mistakes it looks like."""
    from npreparam.conformance.diagnosis import diagnose  # which judges, too

    name = explaining_profile(case, outputs, found, declaration, profile)
    if name:
        verdict = dataclasses.replace(verdict, profile=name, explanation=f"{verdict.explanation}; consistent with {name}")
    if name in (words for words, _ in coarser_operands(case)):
        return verdict
    actual = outputs if len(outputs) > 1 else outputs[0]
    with quietly():
        return dataclasses.replace(verdict, diagnosis=tuple(map(str, diagnose(case, actual, profile, declaration=declaration))))
