"""An implementation on trial: one test for each function, dtype and phase."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from npreparam._errors import ArgumentError
from npreparam.conformance.assertions import described
from npreparam.conformance.case import Level
from npreparam.conformance.rounds import round_keys
from npreparam.conformance.sweep import judged
from npreparam.pytest_plugin import trial_of

SHOWN = 3  # failures told in full


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The groups of cases that the target has an answer to."""
    groups: dict[tuple[str, str, str], list[Any]] = {}
    job = trial_of(metafunc.config)
    if job is not None:
        try:
            runner = job.runner()
        except (ArgumentError, ImportError) as error:
            raise pytest.UsageError(f"--target: {error}") from None
        runner.close()
        for number in range(metafunc.config.getoption("target_rounds")):
            for key in round_keys(number, runner.offers, runner.declaration.dtypes, metafunc.config.getoption("target_seed")):
                groups.setdefault((key.op, key.dtype, key.phase), []).append(key)
    metafunc.parametrize("keys", list(groups.values()) or [[]], ids=["-".join(group) for group in groups] or ["no target"])


@pytest.fixture(scope="module")
def trial(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The job and the runner of `--target`."""
    job = trial_of(request.config)
    if job is None:
        pytest.skip("no --target is given")
    runner = job.runner()
    yield SimpleNamespace(job=job, runner=runner)
    runner.close()


def test_conforms(keys: list[Any], trial: Any) -> None:
    """Every verdict is EXACT, OK, SUSPECT or ABSENT."""
    verdicts = [judged(key, trial.runner, trial.job.profile)[1] for key in keys]
    failures = [verdict for verdict in verdicts if not verdict.conforms]
    if failures:
        told = "\n".join(map(described, sorted(failures, key=lambda v: -v.ratio)[:SHOWN]))
        pytest.fail(f"{len(failures)} of {len(verdicts)} cases fail\n{told}", pytrace=False)
    if all(verdict.level is Level.ABSENT for verdict in verdicts):
        pytest.skip(f"not offered: {verdicts[0].explanation}")
