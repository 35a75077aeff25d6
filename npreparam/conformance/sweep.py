"""A sweep: rounds of seeded cases, judged here or through any `concurrent.futures.Executor`, with the same verdicts in the same order.

A round is a list of keys that depends on the number of the round, the functions, the dtypes and the seed alone. So two reports of the same
number of rounds are the same, whatever the machine. A budget of time ends within a round, whose cases are judged in an order of which every
beginning has its share of each function, dtype and phase; a part of the budget is kept for what is concluded from the verdicts. It begins when
the judge's own kernels are there, which takes a minute where none of them is in the cache on disk.
"""

from __future__ import annotations

import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from npreparam._errors import ArgumentError
from npreparam.certified.bounds import Profile
from npreparam.conformance.case import Case, Key, Level, Verdict
from npreparam.conformance.cases import make_case
from npreparam.conformance.conclusions import diagnosed, explanations, trust
from npreparam.conformance.isolation import Isolated
from npreparam.conformance.judge import judge_case
from npreparam.conformance.rounds import fair, round_keys, unjudged
from npreparam.conformance.runner import InProcess, Runner
from npreparam.conformance.search import search
from npreparam.conformance.signatures import OPS
from npreparam.conformance.target import Declaration, Target, is_adapter
from npreparam.conformance.truth import truths

CHUNK = 40  # cases that travel together
CASES, CONCLUSIONS = 0.75, 0.95  # parts of the budget after which no case, and no conclusion, is begun


@dataclass(frozen=True)
class Job:
    """What is on trial, and how: all that a worker must know.

    `target` is text, or an object (in process only); `profile` replaces the declared arithmetic; `isolate` None means yes for built-in adapters,
    and for what declares it.
    """

    target: Any
    profile: Profile | None = None
    isolate: bool | None = None
    seconds: float | None = None

    def runner(self) -> Runner:
        """A new runner. Raises ArgumentError, ImportError."""
        named = isinstance(self.target, str)
        here = None if self.isolate or (self.isolate is None and named and is_adapter(self.target)) else InProcess(Target.of(self.target))
        if here is not None and not (self.isolate is None and here.declaration.isolate):
            return here
        if not named:
            raise ArgumentError("`isolate` needs a target that is named, as module:attribute: an object cannot be sent to another process")
        return Isolated(self.target, self.seconds)


@dataclass(frozen=True)
class Plan:
    """How much is judged: `rounds`, or as many as a `budget` of seconds allows, the last in part; `fail_fast` stops at the first wrong answer.

    `dtypes` None means all that the target declares. A call that has begun when the budget ends may take its own time limit.
    """

    ops: Sequence[str] = OPS
    dtypes: Sequence[str] | None = None
    seed: int = 0
    budget: float = 60.0
    rounds: int | None = None
    fail_fast: bool = False

    def formats(self, declared: Sequence[str]) -> tuple[str, ...]:
        """The dtypes that are judged. Raises ArgumentError for one that is not declared."""
        if strange := [dtype for dtype in self.dtypes or () if dtype not in declared]:
            raise ArgumentError(f"`dtypes` names {strange[0]!r}, but the target declares {', '.join(declared)}")
        return tuple(declared if self.dtypes is None else dict.fromkeys(self.dtypes))


PLAN = Plan()

@dataclass
class Sweep:
    """What was judged: verdicts by key, whole rounds of `planned` cases with that in hand, and whether it ended by itself.

    `diagnosis`: the known mistakes that the failures of a function look like, all taken together. `caught`, `missed`: the known mistakes of the
    functions on trial that the cases would have found in a target that makes them, and those that they would not. `unjudged`: the functions on
    trial that no case has come to, with the dtype where it is one of several.
    """

    verdicts: dict[Key, Verdict] = field(default_factory=dict)
    rounds: int = 0
    planned: int = 0
    complete: bool = False
    diagnosis: dict[str, list[str]] = field(default_factory=dict)
    caught: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)

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


class Limits(NamedTuple):
    """When to stop: after a time of `time.time()`, or at the first wrong answer."""

    until: float = math.inf
    fail_fast: bool = False


UNLIMITED = Limits()


@functools.lru_cache(maxsize=2)
def _kept_runner(job: Job) -> Runner:
    return job.runner()


def judge_keys(job: Job, chunk: Sequence[Key], runner: Runner | None = None, limits: Limits = UNLIMITED) -> list[Verdict]:
    """The verdicts on some keys, as far as the limits allow; a worker keeps its runner for the next ones."""
    if runner is None:
        runner = _kept_runner(job) if isinstance(job.target, str) else job.runner()
    verdicts: list[Verdict] = []
    for key in chunk:
        if time.time() > limits.until:
            break
        verdicts.append(judged(key, runner, job.profile, explain=False)[1])
        if limits.fail_fast and is_wrong(verdicts[-1]):
            break
    return verdicts


def is_wrong(verdict: Verdict) -> bool:
    """Whether a verdict is a failure with an answer, which can be diagnosed."""
    return not verdict.conforms and not verdict.raised


def judged(key: Key, runner: Runner, profile: Profile | None = None, explain: bool = True) -> tuple[Case | None, Verdict]:
    """The case of a key and the verdict on it; of a search, those of what it found, which is explained in any case."""
    if key.op not in runner.offers or key.dtype not in runner.declaration.dtypes:
        return None, Verdict(Level.ABSENT, key.op, key.phase, key.dtype, "", key, explanation="not offered")
    if key.phase == "search":
        return search(key, runner, profile)
    case = make_case(key)
    return case, judge_case(case, runner, profile, explain)


def run(job: Job, plan: Plan = PLAN, *, executor: Executor | None = None, done: Mapping[Key, Verdict] | None = None,
        step: Step | None = None, runner: Runner | None = None) -> Sweep:
    """Judge a target according to a plan.

    `executor` spreads the cases, otherwise they are judged here; `done` has verdicts of an interrupted sweep, which are kept. `step` is called
    after every few cases with the sweep and the number of keys of its rounds so far. `runner` is one of the job's that is at hand. It is closed
    at the end in any case. KeyboardInterrupt passes through: what `step` saw last is valid.

    Raises ArgumentError, ImportError (a target that cannot be found).
    """
    runner = runner or job.runner()
    try:
        formats, offered = plan.formats(runner.declaration.dtypes), [op for op in plan.ops if op in runner.offers]
        if plan.rounds is None:
            _compile(offered, formats)
        begin = time.time() if plan.rounds is None else math.inf  # a given number of rounds has no limit of time
        sweep, limits = Sweep(), Limits(begin + CASES * plan.budget, plan.fail_fast)
        wanted: list[Key] = []
        while offered and (sweep.rounds < plan.rounds if plan.rounds is not None else not wanted or time.time() < limits.until):
            fresh = round_keys(sweep.rounds, offered, formats, plan.seed)
            wanted += fresh
            sweep.planned = len(wanted)
            if not _judge_round(_Round(job, runner, executor, limits), sweep, fresh, done or {}, step):
                break
            sweep.rounds += 1
        sweep.verdicts = {key: sweep.verdicts[key] for key in wanted if key in sweep.verdicts}
        sweep.complete = True
        until = begin + CONCLUSIONS * plan.budget
        sweep.verdicts.update(explanations(sweep.verdicts, runner, job.profile, until))
        sweep.diagnosis = diagnosed(sweep.verdicts, runner, job.profile, until)
        if not plan.fail_fast:
            first = set(round_keys(0, offered, formats, plan.seed))
            sweep.unjudged = unjudged(sweep.verdicts, offered, formats)
            sweep.caught, sweep.missed = trust((verdict.key for verdict in sweep.asked() if verdict.key in first), job.profile,
                                               runner.declaration, [op for op in offered if op in sweep.unjudged])
        return sweep
    finally:
        runner.close()
        _kept_runner.cache_clear()  # what threads of this process kept ends with its last user


def _compile(ops: Iterable[str], dtypes: Iterable[str]) -> None:
    """Let the judge's own kernels be compiled, or loaded, by one case of each kind: no time of the target's."""
    for op in ops:
        for dtype in dtypes:
            for phase in ("geometry", "random"):
                truths(make_case(Key(op, phase, dtype, 0, 0)), Declaration(""))


Step = Callable[[Sweep, int], None]


class _Round(NamedTuple):
    job: Job
    runner: Runner
    executor: Executor | None
    limits: Limits


def _judge_round(where: _Round, sweep: Sweep, wanted: list[Key], done: Mapping[Key, Verdict], step: Step | None) -> bool:
    """Judge the keys of a round that are not done; whether all of them are, and nothing asks to stop."""
    sweep.verdicts.update({key: done[key] for key in wanted if key in done})
    for verdicts in _spread(where, fair(key for key in wanted if key not in sweep.verdicts)):
        sweep.verdicts.update((verdict.key, verdict) for verdict in verdicts if verdict.key is not None)
        if step is not None:
            step(sweep, sweep.planned)
        if where.limits.fail_fast and any(map(is_wrong, verdicts)):
            return False
    return all(key in sweep.verdicts for key in wanted)


def _spread(where: _Round, wanted: list[Key]) -> Iterator[list[Verdict]]:
    job, runner, executor, limits = where
    chunks = [wanted[:1], *(wanted[i:i + CHUNK] for i in range(1, len(wanted), CHUNK))]
    if executor is None:
        for chunk in chunks:
            yield judge_keys(job, chunk, runner, limits if chunk is not chunks[0] else UNLIMITED)  # one case has always time
        return
    lost: list[Key] = []
    futures: dict[Future[list[Verdict]], list[Key]] = {}
    for chunk in chunks:
        try:
            futures[executor.submit(judge_keys, job, chunk, None, limits)] = chunk
        except BrokenExecutor:
            lost += chunk
    try:
        for future in as_completed(futures):
            if isinstance(future.exception(), ArgumentError | ImportError):
                raise future.exception()  # type: ignore[misc]
            if future.exception() is None:
                yield future.result()
            else:
                lost += futures[future]
    finally:
        for future in futures:
            future.cancel()  # where the first failure was enough
    yield from _once_more(job, lost, executor, limits)


def _once_more(job: Job, lost: list[Key], executor: Executor, limits: Limits) -> Iterator[list[Verdict]]:
    """The cases of lost workers again, each alone: by another worker, or where the executor is broken, in a process of their own."""
    own: Runner | None = None
    try:
        for key in lost:
            if time.time() > limits.until:
                break
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
