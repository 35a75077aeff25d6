"""Reports of a sweep: JSON (which can be resumed), HTML, JUnit XML; and the list of failures that are known.

A report holds no times and no paths, so that the same sweep gives the same bytes everywhere.
"""

from __future__ import annotations

import dataclasses
import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from npreparam._errors import FormatError
from npreparam.conformance.case import Key, Level, Verdict
from npreparam.conformance.sweep import Job, Sweep
from npreparam.conformance.target import Declaration

MISSED = 10  # known mistakes that are told by name
FORMAT = "npreparam judge report 1"
STYLE = ("body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:2px 8px;text-align:right}"
         "td:first-child,th:first-child,.words :is(td,th){text-align:left}")


@dataclasses.dataclass
class KnownFailures:
    """Lines of a file, each a pattern of keys such as "conv2d/*/float16/*", a comment after "#" saying why."""

    patterns: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> KnownFailures:
        """From a file. Raises FormatError for a line that is no pattern of a key."""
        patterns = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            pattern = line.partition("#")[0].strip()
            if pattern and pattern.count("/") > 4:
                raise FormatError(f"line {number} of {path.name} (={pattern!r}) must be function/phase/dtype/seed/index, with * for any")
            if pattern:
                patterns.append(pattern)
        return cls(tuple(patterns))

    def __contains__(self, verdict: Verdict) -> bool:
        return any(fnmatchcase(str(verdict.key), pattern) for pattern in self.patterns)

    def stale(self, verdicts: Iterable[Verdict]) -> list[str]:
        """The patterns that match no failure: they can go."""
        failed = [str(verdict.key) for verdict in verdicts if not verdict.conforms]
        return [pattern for pattern in self.patterns if not any(fnmatchcase(key, pattern) for key in failed)]


def summary(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Any]]:
    """For each function: how many cases had each level, the largest error in ulp and error/bound among those that conform."""
    found: dict[str, dict[str, Any]] = {}
    for verdict in verdicts:
        row = found.setdefault(verdict.op, {"cases": 0, **{str(level): 0 for level in Level}, "ulp": 0.0, "ratio": 0.0})
        row["cases"] += 1
        row[str(verdict.level)] += 1
        if verdict.conforms:
            row["ulp"], row["ratio"] = max(row["ulp"], verdict.ulp), max(row["ratio"], verdict.ratio)
    return found


def record(job: Job, declaration: Declaration, sweep: Sweep, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A report as plain data; `settings` are the seed, the functions and so on."""
    return {"format": FORMAT, "target": job.target if isinstance(job.target, str) else declaration.name, "name": declaration.name,
            "version": declaration.version, **settings, "profile": None if job.profile is None else dataclasses.asdict(job.profile),
            "rounds": sweep.rounds, "complete": sweep.complete, "conforms": not sweep.failures() and bool(sweep.asked()),
            "summary": summary(sweep.verdicts.values()),
            "diagnosis": sweep.diagnosis, "known mistakes": {"caught": sweep.caught, "missed": sweep.missed},
            "planned": sweep.planned, "unjudged": sweep.unjudged,
            "verdicts": [_row(verdict) for verdict in sweep.verdicts.values()]}


def unjudged_told(unjudged: Sequence[str]) -> str:
    """In words, what no case has come to; or "".

    >>> unjudged_told(["tanh", "silu in float64"])
    'the budget ended before any case of tanh, silu in float64: nothing is known of them; a longer --budget or --rounds 1 judges them'
    """
    return (f"the budget ended before any case of {', '.join(unjudged)}: nothing is known of them; a longer --budget or --rounds 1 judges them"
            if unjudged else "")


def trusted(caught: Sequence[str], missed: Sequence[str]) -> str:
    """In words, how many of the known mistakes the cases would have caught, and the first of those that they would not.

    >>> trusted(["tanh: x itself"], ["tanh: sign lost"])
    'these cases would have caught 1 of 2 known mistakes of these functions, but not tanh: sign lost'
    """
    if not caught and not missed:
        return ""
    rest = len(missed) - MISSED
    return (f"these cases would have caught {len(caught)} of {len(caught) + len(missed)} known mistakes of these functions"
            + (f", but not {'; '.join(missed[:MISSED])}" if missed else "") + (f"; and {rest} more" if rest > 0 else ""))


def counted(number: int, what: str) -> str:
    """A number of things in words.

    >>> counted(1, "round"), counted(2, "round")
    ('1 round', '2 rounds')
    """
    return f"{number} {what}" + "s" * (number != 1)


def _row(verdict: Verdict) -> dict[str, Any]:
    """The fields of a verdict that say something; NaN and infinities as text."""
    fields = {"key": str(verdict.key), "level": str(verdict.level), "name": verdict.name, "ulp": verdict.ulp, "ratio": verdict.ratio,
              "output": verdict.output, "index": list(verdict.index), "expected": _number(verdict.expected), "actual": _number(verdict.actual),
              "counts": dict(verdict.counts), "explanation": verdict.explanation, "profile": verdict.profile, "diagnosis": list(verdict.diagnosis)}
    short = ("key", "level", "name", "ulp", "ratio")
    return {name: value for name, value in fields.items() if name in short or (not verdict.conforms and value not in ("", [], {}, None))
            or (name == "explanation" and value)}


def _number(value: float | None) -> Any:
    return value if value is None or abs(value) < float("inf") else repr(value)


def read_verdicts(path: Path, settings: Mapping[str, Any]) -> dict[Key, Verdict]:
    """The verdicts of an earlier report, to go on from.

    Raises FormatError where it is no report, or one of other settings.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if found[name] != value]
        verdicts = [_verdict(row) for row in found["verdicts"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FormatError(f"{path.name} is no report of `npreparam judge`; name another file") from None
    if other:
        raise FormatError(f"{path.name} was made with {other[0]} {found[other[0]]!r}, not {settings[other[0]]!r}; name another file, "
                          "or judge as before")
    return {verdict.key: verdict for verdict in verdicts if verdict.key is not None}


def _verdict(row: Mapping[str, Any]) -> Verdict:
    key = Key.parse(row["key"])
    numbers = {name: None if row.get(name) is None else float(row[name]) for name in ("expected", "actual")}
    return Verdict(Level(row["level"]), key.op, key.phase, key.dtype, row["name"], key, float(row["ulp"]), float(row["ratio"]),
                   row.get("output", ""), tuple(row.get("index", ())), **numbers, counts=row.get("counts", {}),
                   explanation=row.get("explanation", ""), profile=row.get("profile", ""), diagnosis=tuple(row.get("diagnosis", ())))


def as_json(report: Mapping[str, Any]) -> str:
    """The report as JSON."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def as_html(report: Mapping[str, Any]) -> str:
    """The report as one page without scripts."""
    levels = [str(level) for level in Level]
    head = "".join(f"<th>{name}</th>" for name in ("function", "cases", *levels, "ulp", "error/bound"))
    rows = "".join(f"<tr><td>{op}</td><td>{row['cases']}</td>" + "".join(f"<td>{row[level] or ''}</td>" for level in levels)
                   + f"<td>{row['ulp']:.3g}</td><td>{row['ratio']:.3g}</td></tr>" for op, row in report["summary"].items())
    failed = [row for row in report["verdicts"] if "counts" in row or row["level"] in ("ERROR", "CRASH", "TIMEOUT")]
    more = "".join(f"<tr><td>{html.escape(row['key'])}</td><td>{row['level']}</td><td>{html.escape(row['name'])}</td>"
                   f"<td>{html.escape(row.get('explanation', ''))}</td><td>{html.escape('; '.join(row.get('diagnosis', [])))}</td></tr>"
                   for row in failed)
    together = "".join(f"<p>{op} looks like: {html.escape(names[0])}</p>" for op, names in report["diagnosis"].items() if names)
    title = html.escape(f"{report['name']} {report['version']}".strip())
    state = "conforms" if report["conforms"] else "does not conform"
    return (f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title} {state}</h1>"
            f"<p>{counted(len(report['verdicts']), 'case')}, {counted(report['rounds'], 'whole round')}, seed {report['seed']}"
            f"{'' if report['complete'] else ', interrupted'}</p><p>{html.escape(unjudged_told(report['unjudged']))}</p>"
            f"<p>{html.escape(trusted(**report['known mistakes']))}</p><table><tr>{head}</tr>{rows}</table>"
            + (f"<h2>Failures</h2>{together}<table class=words>"
               f"<tr><th>case</th><th>verdict</th><th>about</th><th>what</th><th>looks like</th></tr>{more}</table>"
               if failed else "") + "\n")


def as_junit(report: Mapping[str, Any]) -> str:
    """The report as JUnit XML: one suite for each function."""
    parts = ['<?xml version="1.0" encoding="utf-8"?>\n<testsuites>\n']
    tally: dict[str, Counter[str]] = {}
    cases: dict[str, list[str]] = {}
    for row in report["verdicts"]:
        key, level = Key.parse(row["key"]), Level(row["level"])
        kind = {Level.ABSENT: "skipped", Level.FAIL: "failure", Level.ERROR: "error", Level.CRASH: "error", Level.TIMEOUT: "error"}.get(level, "")
        tally.setdefault(key.op, Counter())[kind] += 1
        inner = f"<{kind} message={quoteattr(_printable(row.get('explanation', '')))}/>" if kind else ""
        name = f"{key.phase}/{key.dtype}/{key.seed}/{key.index} {row['name']}"
        cases.setdefault(key.op, []).append(f"<testcase classname={quoteattr(key.op)} name={quoteattr(_printable(name))}>{inner}</testcase>\n")
    for op, rows in cases.items():
        count = tally[op]
        parts.append(f'<testsuite name="{op}" tests="{len(rows)}" failures="{count["failure"]}" errors="{count["error"]}" '
                     f'skipped="{count["skipped"]}">\n{"".join(rows)}</testsuite>\n')
    return "".join([*parts, "</testsuites>\n"])


def _printable(text: str) -> str:
    """Without the control characters that XML does not allow."""
    return "".join(c if c.isprintable() else " " for c in text)
