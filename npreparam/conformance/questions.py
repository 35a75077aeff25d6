"""Further questions to a target, whose answers decide between mistakes that the first input does not tell apart."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from npreparam.certified.bounds import Profile
from npreparam.conformance import relations
from npreparam.conformance.case import Case, Key
from npreparam.conformance.cases import make_case
from npreparam.conformance.explain import ROUNDED, rounded_operands
from npreparam.conformance.matching import Array, Failure, Finding, Outputs, are_floats, half_the_digits, is_right, match, same_bits, shows
from npreparam.conformance.mistakes import Mistake, mistaken, pinned_cases
from npreparam.conformance.mistakes._trial import in_dtype
from npreparam.conformance.runner import InProcess, Runner
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import truths

Ask = Callable[[Case], Outputs | None]
PROBES = 12  # drawn cases of each kind among the questions, beside the pinned ones
QUESTIONS = 6  # at most


def asking(target: Any) -> Ask:
    """What puts further cases to a target, a Runner or whatever `Target.of` takes, for `diagnose`.

    >>> import types
    >>> ask = asking(types.SimpleNamespace(tanh=np.tanh))
    >>> ask(Case("tanh", {"x": np.zeros(1, np.float32)}))
    (array([0.], dtype=float32),)
    """
    runner: Runner = target if hasattr(target, "ask") else InProcess(target)

    def ask(case: Case) -> Outputs | None:
        answers = relations.ask(case, runner)
        return answers.outputs[-1] if answers.refusal is None and are_floats(answers.outputs[-1]) else None

    return ask


def decided(findings: list[Finding], case: Case, ask: Ask, declared: Declaration, profile: Profile | None) -> list[Finding]:
    """The findings that further answers of the target bear out: those to the inputs on which most of them, and the right function, differ."""
    flicker = _flickers(case, ask)
    if flicker is not None:
        findings = [finding for finding in findings if any(mistake.flickers for mistake in finding.mistakes) == flicker]
    if flicker:
        return findings  # whose answers say little, one by one
    pool = dict(enumerate(_pool(case.op, case.dtype)))
    none = Finding((Mistake(case.op, "none", lambda right, **given: getattr(right, case.op)(**given), "", {}),))
    sign = functools.cache(lambda mistakes, place: _signature(mistakes, pool[place], declared))
    for question in range(QUESTIONS):
        rivals = findings if question else [*findings, none]
        most, best = 1, None
        for place in pool:
            differing = len({sign(finding.mistakes, place) for finding in rivals})
            if differing > most:
                most, best = differing, place
            if most == len(rivals):
                break
        if best is None:
            break
        other = pool.pop(best)
        actual = ask(other)
        if actual is not None:
            findings = [finding for finding in findings if _agrees(finding, other, actual, declared, profile)]
    return findings


@functools.lru_cache(maxsize=64)
def _pool(op: str, dtype: str) -> tuple[Case, ...]:
    """Drawn cases, which tell most mistakes apart, then the pinned ones."""
    drawn = [Key(op, phase, dtype, 0, index) for phase, index in itertools.product(("geometry", "random"), range(PROBES))]
    return (*map(make_case, drawn), *(in_dtype(case, dtype) for case in pinned_cases(op)))


def _flickers(case: Case, ask: Ask) -> bool | None:
    """Whether the same question has different answers; None if it has none."""
    answers = [ask(dataclasses.replace(case, relation="")) for _ in range(3)]
    if any(answer is None for answer in answers):
        return None
    return not all(same_bits(answers[0], answer) for answer in answers[1:])  # type: ignore[arg-type]


def _signature(mistakes: tuple[Mistake, ...], case: Case, declared: Declaration) -> Any:
    """What distinguishes the results from others that would not match them: their shapes, and half the digits."""
    outputs = mistaken(mistakes, case, declared)
    return None if outputs is None else tuple((y.shape, _coarse(y)) for y in outputs)


def _coarse(y: Array) -> tuple[str, bytes]:
    """The scale, and the elements in units of the last digit that counts."""
    digit = half_the_digits(y) or 1.0
    return f"{digit:.2e}", (np.rint(y.astype(np.float64) / digit) + 0.0).tobytes()


def _agrees(finding: Finding, case: Case, actual: Outputs, declared: Declaration, profile: Profile | None) -> bool:
    """Whether an answer is what the mistakes give: a right one where they do not show, else a match."""
    if is_right(case, actual, declared, profile):
        return not shows(finding, case, declared, profile)
    rounded = next((form for form, words in ROUNDED.items() if words == finding.operands), None)
    case = (rounded_operands(case, rounded) or case) if rounded else case
    used = profile or declared.profile(case.dtype)
    return match(finding.mistakes, Failure(case, actual, truths(case, declared, used), declared), used) is not None
