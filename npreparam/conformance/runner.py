"""Asking a target: one call, watched. `InProcess` asks in this process, `isolation.Isolated` in one of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from npreparam.conformance.case import RAISES, Level
from npreparam.conformance.layouts import arranged
from npreparam.conformance.target import Declaration, Target
from npreparam.exact.rounding import FORMATS

LARGEST = 2**30  # bytes of one answer


class Question(NamedTuple):
    """A call: the function, its arguments, their layout, the number of threads (0: as it is), and the shape of a NaN-filled `out`, if any."""

    op: str
    arguments: Mapping[str, Any]
    layout: str = "contiguous"
    threads: int = 0
    out: tuple[int, ...] | None = None


class Reply(NamedTuple):
    """The results, or why there are none: a level and an explanation."""

    outputs: tuple[Any, ...] = ()
    level: Level | None = None
    explanation: str = ""


class Runner(Protocol):
    """Something that answers questions, and never raises for what the target does."""

    declaration: Declaration
    offers: tuple[str, ...]

    def ask(self, question: Question) -> Reply:
        """The reply to one question."""

    def close(self) -> None:
        """Give back what it holds."""


class InProcess:
    """Asks in this process: fast, but a target that crashes or hangs takes the judge with it."""

    def __init__(self, target: Any) -> None:
        self.target = Target.of(target)
        self.declaration, self.offers = self.target.declaration, self.target.offers()

    def ask(self, question: Question) -> Reply:
        """The reply to one question."""
        return answer(self.target, question)

    def close(self) -> None:
        """Nothing to give back."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without warnings: of a target, or of a mistake, a NaN or an overflow is to be judged, not announced."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def answer(target: Target, question: Question) -> Reply:
    """Call the target with copies, and look at what it did to them and what it returned."""
    given = {name: arranged(value, question.layout) for name, value in question.arguments.items()}
    before = {name: _snapshot(value) for name, value in given.items()}
    first = next(value for value in given.values() if isinstance(value, np.ndarray))
    out = None if question.out is None else np.full(question.out, np.nan, first.dtype)
    try:
        with quietly():
            if question.threads:
                target.set_threads(question.threads)
            results = target.call(question.op, given, out)
    except NotImplementedError as error:
        return Reply(level=Level.ABSENT, explanation=f"not implemented: {_line(error)}")
    except (Exception, SystemExit) as error:
        return Reply(level=Level.ERROR, explanation=f"{RAISES}{type(error).__name__}: {_line(error)}")
    changed = [name for name, value in given.items() if _snapshot(value) != before[name]]
    if changed:
        return Reply(level=Level.ERROR, explanation=f"changes its argument `{changed[0]}`")
    return _checked(results, given)


def _checked(results: tuple[Any, ...], given: Mapping[str, Any]) -> Reply:
    for number, result in enumerate(results):
        which = f"result {number} of {len(results)}" if len(results) > 1 else "the result"
        if not isinstance(result, np.ndarray):
            return Reply(level=Level.ERROR, explanation=f"{which} is a {type(result).__name__}, no NumPy array")
        if not is_numbers(result.dtype):
            return Reply(level=Level.ERROR, explanation=f"{which} has dtype {result.dtype}, whose elements are no numbers")
        if result.nbytes > LARGEST:
            return Reply(level=Level.ERROR, explanation=f"{which} has shape {result.shape}: {result.nbytes} bytes")
        for name, value in given.items():
            if isinstance(value, np.ndarray) and result.size and np.may_share_memory(result, value):
                return Reply(level=Level.ERROR, explanation=f"{which} is a view of its argument `{name}`")
    return Reply(tuple(np.array(result, order="C") for result in results))


def is_numbers(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of a dtype hold numbers and nothing else: no objects, records, text or dates.

    >>> is_numbers(np.dtype("float32")), is_numbers(np.dtype(object))
    (True, False)
    """
    return dtype.kind in "biufc" or dtype.name in FORMATS


def _snapshot(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_snapshot, value))
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def _line(error: BaseException) -> str:
    """The first line of an exception's message, cut."""
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception as other:  # a target's own exception may do anything when it is asked
        text = f"(its text raises {type(other).__name__})"
    return text if len(text) <= 300 else text[:300] + " ..."
