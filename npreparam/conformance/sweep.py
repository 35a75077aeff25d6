"""A sweep: rounds of seeded cases, judged here or through any `concurrent.futures.Executor`, with the same verdicts in the same order.

A round is a list of keys that depends on the number of the round, the functions, the dtypes and the seed alone. Within a budget of time whole
rounds are judged: a round begins only if the time that the rounds before took lets one hope that it ends in time. So two reports with the same
number of rounds are the same, whatever the machine.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from npreparam._errors import ArgumentError
from npreparam.certified.bounds import Profile
from npreparam.conformance import relations
from npreparam.conformance.case import Case, Key, Level, Verdict
from npreparam.conformance.cases import keys, make_case, pinned_count
from npreparam.conformance.cases.tables import TABLES
from npreparam.conformance.diagnosis import asking, diagnose_all
from npreparam.conformance.isolation import Isolated
from npreparam.conformance.judge import judge_case
from npreparam.conformance.mistakes import caught, mistakes_of
from npreparam.conformance.runner import InProcess, Runner, quietly
from npreparam.conformance.search import search
from npreparam.conformance.signatures import OPS
from npreparam.conformance.target import Target, is_adapter

FIRST = {"exact": 6, "adjoint": 4, "relation": 12, "random": 8}  # cases of each function and dtype; and all rows of the tables
MORE = {"pinned": 0, "exact": 6, "geometry": 8, "adjoint": 2, "relation": 4, "random": 16, "search": 1}
CHUNK = 40  # cases that travel together
DIAGNOSED = 8  # failures, and cases that passed, of one function that are diagnosed together
NAMED = 5  # known mistakes that are told


@dataclass(frozen=True)
class Job:
    """What is on trial, and how: all that a worker must know.

    `target` is text, or an object (in process only); `profile` replaces the declared arithmetic; `isolate` None means yes for built-in adapters.
    """

    target: Any
    profile: Profile | None = None
    isolate: bool | None = None
    seconds: float | None = None

    def runner(self) -> Runner:
        """A new runner. Raises ArgumentError, ImportError."""
        named = isinstance(self.target, str)
        isolate = named and is_adapter(self.target) if self.isolate is None else self.isolate
        if isolate and not named:
            raise ArgumentError("`isolate` needs a target that is named, as module:attribute: an object cannot be sent to another process")
        return Isolated(self.target, self.seconds) if isolate else InProcess(Target.of(self.target))


@dataclass
class Sweep:
    """What was judged: verdicts by key, whole rounds, and whether it ended by itself.

    `diagnosis`: the known mistakes that the failures of a function look like, all taken together. `caught`, `missed`: the known mistakes of the
    functions on trial that the cases of the first round would have found in a target that makes them, and those that they would not.
    """

    verdicts: dict[Key, Verdict] = field(default_factory=dict)
    rounds: int = 0
    complete: bool = False
    diagnosis: dict[str, list[str]] = field(default_factory=dict)
    caught: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def failures(self) -> list[Verdict]:
        """The verdicts that are evidence against the target."""
        return [verdict for verdict in self.verdicts.values() if not verdict.conforms]

    def asked(self) -> list[Verdict]:
        """The verdicts on what the target offers."""
        return [verdict for verdict in self.verdicts.values() if verdict.level is not Level.ABSENT]

    def why_it_could_not_run(self) -> str:
        """Why there was no single answer, in words, with the commonest reason; or "" where there was one."""
        asked = self.asked()
        if not all(verdict.raised for verdict in asked):
            return ""
        if not self.verdicts:
            return "it offers none of the functions asked for"
        seen = asked or list(self.verdicts.values())
        reason, count = Counter(verdict.explanation for verdict in seen).most_common(1)[0]
        return f"none of {len(seen)} cases {'has an answer' if asked else 'is offered'}; {count} of them: {reason}"


@functools.lru_cache(maxsize=2)
def _kept_runner(job: Job) -> Runner:
    return job.runner()


def judge_keys(job: Job, chunk: Sequence[Key], runner: Runner | None = None) -> list[Verdict]:
    """The verdicts on some keys; a worker keeps its runner for the next ones."""
    if runner is None:
        runner = _kept_runner(job) if isinstance(job.target, str) else job.runner()
    return [judged(key, runner, job.profile)[1] for key in chunk]


def judged(key: Key, runner: Runner, profile: Profile | None = None) -> tuple[Case | None, Verdict]:
    """The case of a key and the verdict on it; of a search, those of what it found."""
    if key.op not in runner.offers or key.dtype not in runner.declaration.dtypes:
        return None, Verdict(Level.ABSENT, key.op, key.phase, key.dtype, "", key, explanation="not offered")
    if key.phase == "search":
        return search(key, runner, profile)
    case = make_case(key)
    return case, judge_case(case, runner, profile)


def round_keys(number: int, ops: Iterable[str] = OPS, dtypes: Iterable[str] = ("float32", "float64"), seed: int = 0) -> list[Key]:
    """The keys of a round.

    >>> len(round_keys(0, ["tanh"], ["float32"])), str(round_keys(1, ["tanh"], ["float32"])[0])
    (37, 'tanh/exact/float32/0/6')
    """
    found: list[Key] = []
    for op in ops:
        first = {**FIRST, "pinned": pinned_count(op), "geometry": len(TABLES[op]), "search": 0}
        for dtype in dtypes:
            for phase, count in MORE.items():
                begin = first[phase] + (number - 1) * count if number else 0
                found += keys(op, phase, dtype, seed, range(begin, begin + (count if number else first[phase])))
    return found


def run(job: Job, *, ops: Sequence[str] = OPS, dtypes: Sequence[str] | None = None, seed: int = 0, budget: float = 60.0, rounds: int | None = None,
        executor: Executor | None = None, done: Mapping[Key, Verdict] | None = None, step: Callable[[Sweep, int], None] | None = None) -> Sweep:
    """Judge a target by rounds, within a budget of seconds, or so many `rounds`.

    `executor` spreads the cases, otherwise they are judged here; `done` has verdicts of an interrupted sweep, which are kept. `step` is called
    after every few cases with the sweep and the number of keys of its rounds so far. KeyboardInterrupt passes through: what `step` saw last is valid.

    Raises ArgumentError, ImportError (a target that cannot be found).
    """
    runner = job.runner()
    try:
        declared = runner.declaration.dtypes
        dtypes = tuple(declared if dtypes is None else dict.fromkeys(dtypes))
        if strange := [dtype for dtype in dtypes if dtype not in declared]:
            raise ArgumentError(f"`dtypes` names {strange[0]!r}, but the target declares {', '.join(declared)}")
        sweep, begin, planned = Sweep(), time.monotonic(), 0
        offered = [op for op in ops if op in runner.offers]
        while offered and (sweep.rounds < rounds if rounds is not None else _in_time(sweep.rounds, time.monotonic() - begin, budget)):
            wanted = round_keys(sweep.rounds, offered, dtypes, seed)
            planned += len(wanted)
            found = {key: done[key] for key in wanted if key in done} if done else {}
            fresh = [key for key in wanted if key not in found]
            for verdicts in _spread(job, fresh, runner, executor):
                found.update((verdict.key, verdict) for verdict in verdicts if verdict.key is not None)
                sweep.verdicts.update(found)
                if step is not None:
                    step(sweep, planned)
            sweep.verdicts.update({key: found[key] for key in wanted})
            sweep.rounds += 1
        sweep.verdicts = {key: sweep.verdicts[key] for number in range(sweep.rounds) for key in round_keys(number, offered, dtypes, seed)}
        sweep.complete = True
        sweep.diagnosis = diagnosed(sweep, runner, job.profile)
        sweep.caught, sweep.missed = trust(round_keys(0, offered, dtypes, seed) if sweep.rounds else [])
        return sweep
    finally:
        runner.close()
        _kept_runner.cache_clear()  # what threads of this process kept ends with its last user


def diagnosed(sweep: Sweep, runner: Runner, profile: Profile | None = None) -> dict[str, list[str]]:
    """For each function that fails, the known mistakes that its failures look like, all taken together; the target is asked again to decide."""
    found = {}
    for op in dict.fromkeys(verdict.op for verdict in sweep.failures()):
        failed = [verdict.key for verdict in sweep.failures() if verdict.op == op and verdict.level in (Level.FAIL, Level.ERROR)]
        passed = [key for key, verdict in sweep.verdicts.items() if key.op == op and verdict.level in (Level.EXACT, Level.OK)]
        cases = [make_case(key) for key in failed if key is not None and key.phase != "search"]
        cases.sort(key=lambda case: bool(case.relation))  # plain questions first
        results = [(case, outputs) for case in cases[:DIAGNOSED] for outputs in relations.ask(case, runner).outputs]
        plain = [case for case in (make_case(key) for key in passed if key.phase in ("pinned", "geometry")) if not case.relation][:DIAGNOSED]
        if results:
            with quietly():
                mistakes = diagnose_all(results, profile, declaration=runner.declaration, ask=asking(runner), passed=plain)
            found[op] = [str(mistake) for mistake in mistakes][:NAMED]
    return found


def trust(wanted: Iterable[Key]) -> tuple[list[str], list[str]]:
    """(caught, missed): the known mistakes that the cases of these keys would have found, and those of the same functions that they would not."""
    cases = [make_case(key) for key in wanted if key.phase != "search" and key.dtype == "float32"]
    with quietly():
        found = caught(cases)
    ops = dict.fromkeys(case.op for case in cases)
    return ([f"{mistake.op}: {mistake}" for mistake in found],
            [f"{mistake.op}: {mistake}" for op in ops for mistake in mistakes_of(op) if mistake not in found])


def _in_time(rounds: int, elapsed: float, budget: float) -> bool:
    """Whether one more round, as long as the mean of those before, would end within the budget; the first always begins."""
    return rounds == 0 or elapsed * (rounds + 1) / rounds <= budget


def _spread(job: Job, wanted: list[Key], runner: Runner, executor: Executor | None) -> Iterator[list[Verdict]]:
    chunks = [wanted[i:i + CHUNK] for i in range(0, len(wanted), CHUNK)]
    if executor is None:
        for chunk in chunks:
            yield judge_keys(job, chunk, runner)
        return
    lost: list[Key] = []
    futures: dict[Future[list[Verdict]], list[Key]] = {}
    for chunk in chunks:
        try:
            futures[executor.submit(judge_keys, job, chunk)] = chunk
        except BrokenExecutor:
            lost += chunk
    for future in as_completed(futures):
        if isinstance(future.exception(), ArgumentError | ImportError):
            raise future.exception()  # type: ignore[misc]
        if future.exception() is None:
            yield future.result()
        else:
            lost += futures[future]
    yield from _once_more(job, lost, executor)


def _once_more(job: Job, lost: list[Key], executor: Executor) -> Iterator[list[Verdict]]:
    """The cases of lost workers again, each alone: by another worker, or where the executor is broken, in a process of their own."""
    own: Runner | None = None
    try:
        for key in lost:
            try:
                yield executor.submit(judge_keys, job, [key]).result()
            except Exception as error:
                if isinstance(error, BrokenExecutor) and isinstance(job.target, str):
                    own = own or replace(job, isolate=True).runner()
                    yield judge_keys(job, [key], own)
                else:
                    told = f"its worker was lost twice: {type(error).__name__}"
                    yield [Verdict(Level.CRASH, key.op, key.phase, key.dtype, "", key, explanation=told)]
    finally:
        if own is not None:
            own.close()
