"""A budget of time: what is judged within it, what is explained, and how far the cases are to be trusted."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from npreparam import ops
from npreparam.certified.bounds import profile_named
from npreparam.conformance import Declaration, Level, conclusions, judge_case
from npreparam.conformance import sweep as sweeping
from npreparam.conformance.cases import make_case
from npreparam.conformance.conclusions import trust
from npreparam.conformance.mistakes import as_target, mistake_named, mistakes_of
from npreparam.conformance.runner import InProcess
from npreparam.conformance.sweep import Job, Plan, round_keys, run
from tests.conformance.test_sweep import FLIPPED

OPS = ("conv2d", "tanh")  # one that fails, one that does not


@pytest.fixture
def flipped(tmp_path):
    path = tmp_path / "flipped.py"
    path.write_text(FLIPPED)
    return str(path)


class Clock:
    """A clock that moves by so many seconds whenever it is read; the real one otherwise is of no use in a test."""

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def time(self):
        self.now += self.seconds
        return self.now


@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_a_budget_ends_within_a_round_of_which_each_function_and_phase_has_had_its_share(seconds, monkeypatch):
    clock = Clock(seconds)
    monkeypatch.setattr(sweeping, "time", clock)
    monkeypatch.setattr(conclusions, "time", clock)
    target = SimpleNamespace(tanh=np.tanh, sigmoid=lambda x: np.zeros_like(x), linear=ops.linear)
    sweep = run(Job(target), Plan(budget=60.0))
    assert clock.now <= 60.0 + 10 * seconds  # a few readings are no cases
    assert sweep.complete
    assert 40 < len(sweep.verdicts) < sweep.planned
    part = [key for key in sweep.verdicts if key in set(round_keys(sweep.rounds, ("linear", "sigmoid", "tanh")))]
    whole = round_keys(sweep.rounds, ("linear", "sigmoid", "tanh"))
    share = len(part) / len(whole)
    for group in {key[:3] for key in whole}:
        count = sum(key[:3] == group for key in whole)
        assert abs(sum(key[:3] == group for key in part) - share * count) <= 2


def test_one_case_is_judged_whatever_the_budget_and_the_first_failure_can_be_enough():
    job = Job(SimpleNamespace(tanh=np.tanh, sigmoid=np.tanh))
    assert len(run(job, Plan(budget=0.0)).verdicts) == 1
    late = run(Job(SimpleNamespace(tanh=np.arctan)), Plan(budget=0.0))
    assert len(late.failures()) == len(late.diagnosis) == 1
    sweep = run(job, Plan(rounds=1, fail_fast=True))
    assert len(sweep.failures()) == 1
    assert sweep.complete
    assert not sweep.caught
    sweep = run(Job(as_target(mistake_named("batch_norm", "evaluation uses the batch's statistics"))), Plan(rounds=1, fail_fast=True))
    assert sweep.diagnosis["batch_norm"][0].startswith("evaluation uses")  # though it raises before
    with ThreadPoolExecutor(2) as executor:
        assert run(job, Plan(rounds=1, fail_fast=True), executor=executor).failures()


def test_the_first_failure_of_each_function_dtype_and_phase_is_explained(flipped):
    failures = [verdict for verdict in run(Job(flipped), Plan(OPS, rounds=1)).failures() if verdict.level is Level.FAIL]
    first = {}
    for verdict in failures:
        first.setdefault(verdict.key[:3], verdict)
    runner = InProcess(flipped)
    assert all(verdict == judge_case(make_case(verdict.key), runner) for verdict in first.values())
    assert sum(bool(verdict.diagnosis) for verdict in failures) <= len(first) < len(failures)


def test_what_no_case_has_come_to_is_told_and_not_trusted():
    target = SimpleNamespace(tanh=np.tanh, sigmoid=np.tanh, linear=ops.linear, declaration=Declaration("three", unsupported={"linear": ("*",)}))
    sweep = run(Job(target), Plan(("tanh", "sigmoid"), budget=0.0))
    ((key, _),) = sweep.verdicts.items()
    other = "sigmoid" if key.op == "tanh" else "tanh"
    assert set(sweep.unjudged) == {other, f"{key.op} in {'float64' if key.dtype == 'float32' else 'float32'}"}
    assert {str(mistake) for mistake in mistakes_of(other)} <= {name.partition(": ")[2] for name in sweep.missed if name.startswith(other)}
    whole = run(Job(target), Plan(rounds=1))
    assert whole.unjudged == []
    assert not any(name.startswith("linear") for name in whole.missed)


def test_the_compilation_of_the_judge_is_no_time_of_the_target(monkeypatch):
    clock, compiled = Clock(0.01), sweeping._compile
    monkeypatch.setattr(sweeping, "time", clock)
    monkeypatch.setattr(conclusions, "time", clock)

    def slowly(*arguments):
        clock.now += 1000.0
        compiled(*arguments)

    monkeypatch.setattr(sweeping, "_compile", slowly)
    assert len(run(Job(SimpleNamespace(tanh=np.tanh)), Plan(budget=1.0)).verdicts) > 40


def test_the_arithmetic_that_a_target_is_judged_by_decides_how_much_is_caught():
    target, profile = SimpleNamespace(linear=ops.linear), profile_named("float16_float16")
    counts = [len(run(Job(target, given), Plan(("linear",), ("float32",), rounds=1)).caught) for given in (None, profile)]
    declared = SimpleNamespace(linear=ops.linear, declaration=Declaration("", profiles={"float32": profile}))
    counts.append(len(run(Job(declared), Plan(("linear",), ("float32",), rounds=1)).caught))
    assert counts[0] > counts[1] == counts[2] > 0


def test_what_one_dtype_does_not_show_another_may():
    wanted = round_keys(0, ["softplus"], ["float32", "float64"])
    missed = trust(key for key in wanted if key.dtype == "float32")[1]
    assert missed
    assert trust(wanted)[1] == []


def test_trust_counts_only_what_was_asked_in_the_dtype_that_there_is():
    half = SimpleNamespace(tanh=np.tanh, softplus=np.tanh, declaration=Declaration("half", dtypes=("float64",), unsupported={"softplus": ("*",)}))
    sweep = run(Job(half), Plan(rounds=1))
    assert sweep.caught
    assert all(name.startswith("tanh: ") for name in (*sweep.caught, *sweep.missed))
