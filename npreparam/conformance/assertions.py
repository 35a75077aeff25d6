"""For people's own test suites: one assertion that knows the truth and how far from it honest rounding may lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.certified.bounds import Profile, profile_named
from npreparam.conformance.case import Case, Level, Verdict
from npreparam.conformance.judge import judge_case
from npreparam.conformance.signatures import PARAMETERS
from npreparam.conformance.target import Declaration

ALL_DTYPES = ("float16", "bfloat16", "float32", "float64")


def assert_conforms(actual: Any, op: str, args: Mapping[str, Any] | Sequence[Any], profile: Profile | str | None = None,
                    declaration: Declaration | None = None) -> Verdict:
    """Fail unless `actual` is what an honest implementation of `op` may return for `args`; the verdict, if it is.

    `args` are the arguments by name, or in the order of `conformance.signatures`; arrays may be anything that numpy.asarray takes. `profile` is the
    arithmetic to judge by, otherwise the usual one of the dtype; `declaration` may tell conventions (momentum, biased running variance).

    Raises AssertionError (with the worst element, error in ulp and as a fraction of the bound, and the known mistake that it looks like),
    ArgumentError (no such function or argument).

    >>> x = np.float32([-1.0, 2.0])
    >>> assert_conforms(1 / (1 + np.exp(-x)), "sigmoid", {"x": x}).conforms
    True
    >>> assert_conforms(1 / (1 + np.exp(x)), "sigmoid", {"x": x})    # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    AssertionError: sigmoid float32: FAIL, 2 of 2 elements
    """
    __tracebackhide__ = True  # pytest shows the caller's line, not ours
    if op not in PARAMETERS:
        raise ArgumentError(f"`op` (={op!r}) must be one of {', '.join(PARAMETERS)}")
    named = args if isinstance(args, Mapping) else dict(zip(PARAMETERS[op], args, strict=False))
    if len(named) < len(args):
        raise ArgumentError(f"`args` holds {len(args)} arguments, but {op} has {len(PARAMETERS[op])}: {', '.join(PARAMETERS[op])}")
    case = Case(op, {name: _plain(value) for name, value in named.items()})
    answer = tuple(map(_plain, actual)) if isinstance(actual, tuple | list) else _plain(actual)
    declared = declaration or Declaration("actual", dtypes=ALL_DTYPES)
    target = SimpleNamespace(**{op: lambda *given, **keywords: answer}, declaration=declared)
    judged_by = profile_named(profile) if isinstance(profile, str) else profile
    verdict = judge_case(case, target, judged_by)
    if not verdict.conforms or verdict.level is Level.ABSENT:
        raise AssertionError(described(verdict))
    return verdict


def described(verdict: Verdict) -> str:
    """A verdict in words, a line for each thing that is known."""
    wrong, total = verdict.counts.get("FAIL", 0), sum(verdict.counts.values())
    lines = [f"{verdict.op} {verdict.dtype}: {verdict.level}" + (f", {wrong} of {total} elements" if wrong else "")]
    if verdict.key is not None:
        lines.append(f"  case           {verdict.key} ({verdict.name})")
    if verdict.expected is not None and verdict.actual is not None:
        place = f"{verdict.output}{list(verdict.index)}" if verdict.index else verdict.output
        lines += [f"  worst element  {place}", f"  expected       {verdict.expected!r}", f"  actual         {verdict.actual!r}",
                  f"  error          {verdict.ulp:.4g} ulp, {verdict.ratio:.4g} times the bound"]
    if verdict.profile:
        lines.append(f"  consistent with {verdict.profile}")
    lines += [f"  looks like     {mistake}" for mistake in verdict.diagnosis]
    if verdict.explanation:
        lines.append(f"  {verdict.explanation}")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Arrays of any library as NumPy's; tuples piece by piece; all else as it is."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return np.asarray(value) if hasattr(value, "__array__") else value
