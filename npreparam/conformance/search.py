"""The search for the worst input: Hypothesis draws arguments, steers towards large error/bound, and shrinks a failing one to the smallest."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from npreparam.certified.bounds import Profile
from npreparam.conformance.case import Case, Key, Level, Verdict
from npreparam.conformance.cases.builders import BUILDERS
from npreparam.conformance.judge import judge_case
from npreparam.conformance.runner import Runner
from npreparam.exact.rounding import dtype_of

EXAMPLES = 60
SHRINKS = 150  # questions asked after the first failure, to make it smaller
WIDTHS = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}  # every bfloat16 number that is drawn is rounded to one


_ONE_AT_A_TIME = threading.Lock()


class _FoundError(Exception):
    pass


@contextmanager
def _same_everywhere() -> Iterator[None]:
    """Keep Hypothesis from drawing constants that it finds in whatever modules of the user's this process has loaded."""
    from hypothesis.internal.conjecture import providers

    with _ONE_AT_A_TIME:
        if not all(hasattr(providers, name) for name in ("_get_local_constants", "Constants", "CONSTANTS_CACHE")):
            yield  # another version of Hypothesis, perhaps without this feature
            return
        cache = type(providers.CONSTANTS_CACHE)(1024)
        with mock.patch.object(providers, "_get_local_constants", providers.Constants), mock.patch.object(providers, "CONSTANTS_CACHE", cache):
            yield


class DrawnSource:
    """Numbers drawn by Hypothesis, which it can shrink."""

    def __init__(self, draw: Any, dtype: str) -> None:
        self.draw, self.name, self.dtype = draw, dtype, dtype_of(dtype)

    def integer(self, low: int, high: int) -> int:
        """Shrinks to `low`."""
        from hypothesis import strategies as st

        return self.draw(st.integers(low, high))

    def choice(self, options: Sequence[Any]) -> Any:
        """Shrinks to the first."""
        from hypothesis import strategies as st

        return self.draw(st.sampled_from(list(options)))

    def array(self, shape: tuple[int, ...], role: str = "", along: int = 1) -> NDArray[Any]:
        """Small integers and floats, zeros where nothing else is drawn; variances and deviations between 1/16 and 16, ones elsewhere."""
        from hypothesis import strategies as st
        from hypothesis.extra.numpy import arrays

        width = WIDTHS[self.name]
        if role in ("positive", "target"):
            elements, fill = st.floats(0.0 if role == "target" else 0.0625, 1.0 if role == "target" else 16.0, width=width), 1.0
        else:
            elements, fill = st.integers(-4, 4).map(float) | st.floats(-1024.0, 1024.0, width=width), 0.0
        return self.draw(arrays(np.float64, shape, elements=elements, fill=st.just(fill))).astype(self.dtype)


def _arguments(key: Key) -> Any:
    """A strategy for the arguments of a key's function."""
    from hypothesis import strategies as st

    @st.composite
    def arguments(draw: st.DrawFn) -> dict[str, Any]:
        source = DrawnSource(draw, key.dtype)
        geometry, builder = BUILDERS[key.op]
        return builder(source, geometry(source))

    return arguments()


def search(key: Key, runner: Runner, profile: Profile | None = None, examples: int = EXAMPLES) -> tuple[Case | None, Verdict]:
    """The smallest failing case that is found, or the one with the largest error/bound, with its verdict.

    The same key, target and version of Hypothesis give the same search. Without Hypothesis (extra `judge`) the verdict is ABSENT.
    """
    try:
        from hypothesis import HealthCheck, Phase, given, settings, target
        from hypothesis import seed as seeded
    except ImportError:
        reason = "needs Hypothesis: pip install 'npreparam[judge]'"
        return None, Verdict(Level.ABSENT, key.op, key.phase, key.dtype, "search", key, explanation=reason)

    best: list[tuple[Case, Verdict]] = []
    failed: list[tuple[Case, Verdict]] = []
    left = SHRINKS

    @seeded(key.seed * 1_000_003 + key.index)
    @settings(max_examples=examples, database=None, deadline=None, phases=(Phase.generate, Phase.target, Phase.shrink),
              suppress_health_check=list(HealthCheck), report_multiple_bugs=False, print_blob=False)
    @given(_arguments(key))
    def trial(given_arguments: dict[str, Any]) -> None:
        nonlocal left
        left -= bool(failed)
        if left < 0:
            return
        case = Case(key.op, given_arguments, key.phase, "search", key)
        verdict = judge_case(case, runner, profile, explain=False)
        if not verdict.conforms:
            failed[:] = [(case, verdict)]
            raise _FoundError
        if not best or (verdict.level is not Level.ABSENT and verdict.ratio >= best[0][1].ratio):
            best[:] = [(case, verdict)]
        target(min(verdict.ratio, 1.0) if math.isfinite(verdict.ratio) else 1.0)

    try:
        with _same_everywhere():
            trial()
    except Exception:
        if not failed:
            raise
        # _FoundError, or found to be flaky, since SHRINKS are used up or the target changes its mind: it failed once, which is enough
    if not failed:
        return best[0]
    case, verdict = failed[0]
    again = judge_case(case, runner, profile)  # once, with its explanation
    return case, again if again.level is Level.FAIL else verdict
