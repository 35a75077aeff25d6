"""`judge`: put an implementation on trial."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from npreparam import __version__
from npreparam._errors import ArgumentError
from npreparam.certified.bounds import profile_named
from npreparam.cli.output import write
from npreparam.conformance.case import Level, Verdict
from npreparam.conformance.report import KnownFailures, as_html, as_json, as_junit, counted, read_verdicts, record, summary, trusted, unjudged_told
from npreparam.conformance.runner import Runner
from npreparam.conformance.script import standalone
from npreparam.conformance.signatures import OPS
from npreparam.conformance.sweep import PLAN, Job, Plan, Sweep, judged, run
from npreparam.conformance.target import Declaration

CONFORMS, DOES_NOT, COULD_NOT = 0, 1, 2
SAVE_SECONDS = 5.0  # between two partial reports
SHOWN = 20  # kinds of failures: function, level and phase


@dataclass(frozen=True)
class Cases:
    """Options: what is judged, and how much of it."""

    ops: Annotated[str | None, typer.Option(help="Functions, between commas.", show_default="all that the target offers")] = None
    dtypes: Annotated[str | None, typer.Option(help="float16, bfloat16, float32, float64.", show_default="those declared")] = None
    profile: Annotated[str | None, typer.Option(help="Arithmetic to judge by, for the declared one: float32, tf32, winograd_f4_3, ...")] = None
    budget: Annotated[str, typer.Option(help="Time once the judge's own kernels are compiled; it ends within a round of cases.")] = "60s"
    rounds: Annotated[int | None, typer.Option(min=1, help="Judge so many rounds, whatever the time.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of all cases: same seed and rounds, same report.")] = 0
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first wrong answer, and tell what it looks like.")] = False

    def plan(self) -> Plan:
        """The same as a record. Raises ArgumentError."""
        formats = None if self.dtypes is None else tuple(part.strip() for part in self.dtypes.split(","))
        return Plan(as_ops(self.ops), formats, self.seed, as_seconds(self.budget), self.rounds, self.fail_fast)


@dataclass(frozen=True)
class Files:
    """Options: what is written and read."""

    json: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON.")] = None
    html: Annotated[Path | None, typer.Option("--html", help="Write the report as a page.")] = None
    junit: Annotated[Path | None, typer.Option("--junit", help="Write the report as JUnit XML.")] = None
    known_failures: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Cases that may fail, one pattern a line: "
                                                        "conv2d/*/float16/*  # why.")] = None
    scripts: Annotated[Path | None, typer.Option(help="Folder for stand-alone scripts of the smallest failing cases.")] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the interrupted report that --json names.")] = False


@dataclass(frozen=True)
class Running:
    """Options: where the target and the judge run."""

    isolate: Annotated[bool | None, typer.Option("--isolate/--no-isolate", help="Run the target in a process of its own.",
                                                 show_default="yes for built-in adapters")] = None
    jobs: Annotated[int, typer.Option(min=1, help="Processes to judge in.")] = 1
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Judge on the Dask cluster there, such as tcp://host:8786.")] = None


@dataclass
class Trial:
    """The options of one run."""

    target: str
    plan: Plan = PLAN
    profile: str | None = None
    isolate: bool | None = None
    jobs: int = 1
    files: Mapping[str, Path] = field(default_factory=dict)  # "json", "html", "junit", "known failures", "scripts"
    resume: bool = False

    @classmethod
    def of(cls, target: str, cases: Cases, files: Files, running: Running) -> Trial:
        """From the options of a command. Raises ArgumentError."""
        named = {"json": files.json, "html": files.html, "junit": files.junit, "known failures": files.known_failures, "scripts": files.scripts}
        return cls(target, cases.plan(), cases.profile, running.isolate, running.jobs,
                   {name: path for name, path in named.items() if path is not None}, files.resume)

    def settings(self) -> dict[str, Any]:
        """What must be the same for a report to be resumed."""
        return {"npreparam": __version__, "target": self.target, "seed": self.plan.seed, "ops": list(self.plan.ops),
                "dtypes": None if self.plan.dtypes is None else list(self.plan.dtypes), "declared profile": self.profile}


def as_seconds(text: str) -> float:
    """A duration such as 60, 60s, 2m or 1h in seconds. Raises ArgumentError.

    >>> as_seconds("2m")
    120.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match or not math.isfinite(float(match[1])):
        raise ArgumentError(f"--budget (={text}) must be a duration such as 60, 60s, 2m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def as_ops(text: str | None) -> tuple[str, ...]:
    """Functions by their names, between commas; all of them for None. Raises ArgumentError."""
    names = OPS if text is None else tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in OPS:
            raise ArgumentError(f"--ops names {name!r}, but the functions are {', '.join(OPS)}")
    if not names:
        raise ArgumentError(f"--ops (={text!r}) names no function; give some of {', '.join(OPS)}")
    return names


def judge(trial: Trial, console: Console, executor: Executor | None = None) -> int:
    """Run a trial, print the table, write the files; the exit status."""
    sys.path[:0] = [] if "" in sys.path or os.getcwd() in sys.path else [os.getcwd()]  # targets are looked up where the user is
    job = Job(trial.target, None if trial.profile is None else profile_named(trial.profile), trial.isolate)
    known = KnownFailures.read(trial.files["known failures"]) if "known failures" in trial.files else KnownFailures()
    for name in ("json", "html", "junit"):
        _check_writable(trial.files.get(name), name)
    runner = job.runner()
    declaration, done = runner.declaration, {}
    if trial.resume:
        if "json" not in trial.files:
            raise ArgumentError("--resume goes on from the report that --json names; give --json")
        if trial.files["json"].exists():
            done = read_verdicts(trial.files["json"], trial.settings())
    sweep = _swept(trial, job, runner, done, console, executor)
    _write_reports(trial, job, declaration, sweep)
    if sweep.complete and (reason := sweep.why_it_could_not_run()):
        raise ArgumentError(f"`target` (={trial.target!r}) could not run: {reason}")
    console.print(table(sweep))
    failures = [verdict for verdict in sweep.failures() if verdict not in known]
    _tell(failures, sweep, known, console)
    if "scripts" in trial.files and failures:
        _write_scripts(trial, job, declaration, failures, console)
    if not sweep.complete:
        console.print("interrupted; the report holds what was judged so far" + (", --resume goes on" if "json" in trial.files else ""))
        return COULD_NOT
    for told in filter(None, (unjudged_told(sweep.unjudged), trusted(sweep.caught, sweep.missed), _concluded(declaration, sweep, failures))):
        console.print(told, markup=False, soft_wrap=True)
    return DOES_NOT if failures else CONFORMS


def _concluded(declaration: Declaration, sweep: Sweep, failures: list[Verdict]) -> str:
    """The last line: what was judged, how much of it, and the verdict, which is worth no more than that."""
    part = len(sweep.verdicts) < sweep.planned
    rounds = (counted(sweep.rounds, "round") + " and a part of the next" * part) if sweep.rounds else "a part of the first round"
    told = counted(len(failures), "failure") if failures else "conforms" + ", but for the known failures" * bool(sweep.failures())
    if not sweep.rounds and not failures:
        told += f", as far as {len(sweep.verdicts)} of the {sweep.planned} cases of that round tell"
    return f"{declaration.name} {declaration.version}".strip() + f": {counted(len(sweep.asked()), 'case')} in {rounds}, {told}"


def _swept(trial: Trial, job: Job, runner: Runner, done: Any, console: Console, executor: Executor | None) -> Sweep:
    """The sweep, with a bar and partial reports; an interrupt leaves what there is."""
    last, begin = Sweep(), time.monotonic()
    saved = begin
    pool: AbstractContextManager[Any] = nullcontext(executor)
    if executor is None and trial.jobs > 1:
        pool = ProcessPoolExecutor(trial.jobs, mp_context=get_context("spawn"))
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} cases"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar, pool as workers:
        task = bar.add_task("compiling what is not compiled yet", total=None)

        def step(sweep: Sweep, planned: int) -> None:
            nonlocal last, saved
            last = sweep
            bar.update(task, completed=len(sweep.verdicts), total=planned, description=f"judging, round {sweep.rounds + 1}")
            if time.monotonic() - saved > SAVE_SECONDS:
                _write_reports(trial, job, runner.declaration, sweep)
                saved = time.monotonic()

        try:
            return run(job, trial.plan, executor=workers, done=done, step=step, runner=runner)
        except KeyboardInterrupt:
            return last


def table(sweep: Sweep) -> Table:
    """One row for each function."""
    levels = [level for level in Level if any(verdict.level is level for verdict in sweep.verdicts.values())]
    found = Table(*(Column(name, overflow="fold") for name in ("function", "cases", *map(str, levels), "ulp", "error/bound")))
    for op, row in summary(sweep.verdicts.values()).items():
        found.add_row(op, str(row["cases"]), *(str(row[str(level)] or "") for level in levels), f"{row['ulp']:.3g}", f"{row['ratio']:.3g}")
    return found


def _tell(failures: list[Verdict], sweep: Sweep, known: KnownFailures, console: Console) -> None:
    groups: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in failures:
        groups.setdefault((verdict.op, str(verdict.level), verdict.phase), []).append(verdict)
    for verdict, *others in list(groups.values())[:SHOWN]:
        case = f", case '{verdict.name}'" if verdict.name else ""
        console.print(f"{verdict.level} {verdict.key}{case}: {verdict.explanation}"
                      + "".join(f"; looks like {name}" for name in verdict.diagnosis[:1])
                      + (f" (and {len(others)} more)" if others else ""), markup=False, soft_wrap=True)
    if len(groups) > SHOWN:
        console.print(f"... and {len(groups) - SHOWN} more kinds; --json has all")
    for op, names in sweep.diagnosis.items():
        if names and any(verdict.op == op for verdict in failures):
            console.print(f"{op} looks like: {names[0]}", markup=False, soft_wrap=True)
    expected = len(sweep.failures()) - len(failures)
    if expected:
        console.print(f"{counted(expected, 'failure')} known")
    for pattern in known.stale(sweep.verdicts.values()):
        console.print(f"known failure {pattern} did not fail: it can go", markup=False)


def _check_writable(path: Path | None, option: str) -> None:
    if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK) and not path.is_dir()):
        raise ArgumentError(f"--{option} (={path}) cannot be written; name a file in a folder that exists")


def _write_reports(trial: Trial, job: Job, declaration: Declaration, sweep: Sweep) -> None:
    wanted = {"json": as_json, "html": as_html, "junit": as_junit}
    if any(name in trial.files for name in wanted):
        report = record(job, declaration, sweep, trial.settings())
        for name, text in wanted.items():
            if name in trial.files:
                write(trial.files[name], text(report).encode())


def _write_scripts(trial: Trial, job: Job, declaration: Declaration, failures: list[Verdict], console: Console) -> None:
    """A script for the smallest failing case of each function and phase."""
    folder = trial.files["scripts"]
    folder.mkdir(parents=True, exist_ok=True)
    runner, smallest = job.runner(), {}
    try:
        for verdict in failures[:200]:
            assert verdict.key is not None
            case, again = judged(verdict.key, runner, job.profile, explain=False)
            if case is None or case.refused or again.level is not Level.FAIL:
                continue
            size, place = sum(array.size for array in case.arrays().values()), (case.op, case.phase, case.dtype)
            if place not in smallest or size < smallest[place][0]:
                smallest[place] = size, case, verdict if verdict.level is Level.FAIL else again
    finally:
        runner.close()
    for place, (_, case, again) in smallest.items():
        write(folder / f"{'_'.join(place)}.py", standalone(case, again, trial.target, declaration, job.profile).encode())
    console.print(f"{len(smallest)} scripts in {folder}", markup=False)
