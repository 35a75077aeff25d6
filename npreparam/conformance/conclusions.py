"""What is concluded from the verdicts of a sweep: why failures fail, which known mistakes they look like, and how far the cases are to be trusted.

Each takes `until`, a time of `time.time()`, and begins nothing new after it, except the first of its kind.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from npreparam.certified.bounds import Profile
from npreparam.conformance import relations
from npreparam.conformance.case import Key, Level, Verdict
from npreparam.conformance.cases import make_case
from npreparam.conformance.diagnosis import asking, diagnose_all
from npreparam.conformance.judge import judge_case
from npreparam.conformance.mistakes import caught, mistakes_of
from npreparam.conformance.runner import Runner, quietly
from npreparam.conformance.target import Declaration

DIAGNOSED = 8  # failures, and cases that passed, of one function that are diagnosed together
NAMED = 5  # known mistakes that are told


def explanations(verdicts: Mapping[Key, Verdict], runner: Runner, profile: Profile | None = None, until: float = math.inf) -> dict[Key, Verdict]:
    """The first FAIL of each function, phase and dtype, judged again, now with the arithmetic and the known mistakes that explain it.

    One by one for each function in turn, since an explanation takes as long as a hundred verdicts. A search explains what it finds by itself.
    """
    first: dict[tuple[str, str, str], Key] = {}
    for key, verdict in verdicts.items():
        if verdict.level is Level.FAIL and key.phase != "search":
            first.setdefault(key[:3], key)
    turns: Counter[str] = Counter()
    queue = []
    for key in first.values():
        turns[key.op] += 1
        queue.append((turns[key.op], key))
    found = {}
    for _, key in sorted(queue, key=lambda entry: entry[0]):
        if found and time.time() > until:
            break
        again = judge_case(make_case(key), runner, profile)
        if again.level is Level.FAIL:  # or it changed its mind: the first verdict stands
            found[key] = again
    return found


def diagnosed(verdicts: Mapping[Key, Verdict], runner: Runner, profile: Profile | None = None, until: float = math.inf) -> dict[str, list[str]]:
    """For each function that fails, the known mistakes that its failures look like, all taken together; the target is asked again to decide."""
    found = {}
    for op in dict.fromkeys(key.op for key, verdict in verdicts.items() if not verdict.conforms):
        if found and time.time() > until:
            break
        failed = [key for level in (Level.FAIL, Level.ERROR) for key, verdict in verdicts.items()
                  if key.op == op and verdict.level is level and not verdict.raised]  # what was raised has no numbers to compare
        passed = [key for key, verdict in verdicts.items() if key.op == op and verdict.level in (Level.EXACT, Level.OK)]
        cases = [case for case in (make_case(key) for key in failed if key.phase != "search") if not case.refused]
        cases.sort(key=lambda case: bool(case.relation))  # plain questions first
        results = [(case, outputs) for case in cases[:DIAGNOSED] for outputs in relations.ask(case, runner).outputs]
        plain = [make_case(key) for key in passed if key.phase in ("pinned", "geometry")]
        plain = [case for case in plain if not case.relation and not case.refused][:DIAGNOSED]
        if results:
            with quietly():
                mistakes = diagnose_all(results, profile, declaration=runner.declaration, ask=asking(runner), passed=plain)
            found[op] = [str(mistake) for mistake in mistakes][:NAMED]
        elif named := dict.fromkeys(name for verdict in verdicts.values() if verdict.op == op for name in verdict.diagnosis):
            found[op] = list(named)[:NAMED]
    return found


def trust(wanted: Iterable[Key], profile: Profile | None = None, declaration: Declaration | None = None,
          unjudged: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """(caught, missed): the known mistakes that the cases of these keys would have found, and those of the same functions, and of the `unjudged`
    ones, that they would not. They are judged as the target is: by the arithmetic declared, or by the `profile` that replaces it.

    One dtype after the other, float32 first: the others have to find only what is left.
    """
    wanted = [key for key in wanted if key.phase != "search"]
    dtypes = sorted(dict.fromkeys(key.dtype for key in wanted), key=lambda dtype: dtype != "float32")
    rows = [mistake for op in dict.fromkeys([*(key.op for key in wanted), *unjudged]) for mistake in mistakes_of(op)]
    missed = list(rows)
    for dtype in dtypes:
        ops = {mistake.op for mistake in missed}
        with quietly():
            found = caught((make_case(key) for key in wanted if key.dtype == dtype and key.op in ops), profile, declaration)
        missed = [mistake for mistake in missed if mistake not in found]
    return ([f"{mistake.op}: {mistake}" for mistake in rows if mistake not in missed], [f"{mistake.op}: {mistake}" for mistake in missed])
