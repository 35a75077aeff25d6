"""Sweeps: the same verdicts and bytes whoever judges, interrupted or not; lost workers; reports; stand-alone scripts."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest

from npreparam import ArgumentError, FormatError, ops
from npreparam.conformance import Case, Declaration, Key, Level, Target, Verdict, isolation, judge_case
from npreparam.conformance.cases import make_case
from npreparam.conformance.layouts import LAYOUTS, arranged
from npreparam.conformance.report import KnownFailures, as_html, as_json, as_junit, read_verdicts, record
from npreparam.conformance.runner import InProcess
from npreparam.conformance.script import standalone
from npreparam.conformance.search import search
from npreparam.conformance.sweep import Job, Plan, Sweep, run

SETTINGS = {"seed": 0}
OPS = ("conv2d", "tanh")  # one that fails, one that does not
FLIPPED = '''
import numpy as np
from npreparam import ops
def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    return ops.conv2d(x, np.ascontiguousarray(w[..., ::-1]), b, stride, padding, dilation, groups)
def tanh(x):
    return np.tanh(x)
'''


@pytest.fixture
def flipped(tmp_path):
    path = tmp_path / "flipped.py"
    path.write_text(FLIPPED)
    return str(path)


def report(job, sweep):
    return as_json(record(job, job.runner().declaration, sweep, SETTINGS))


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_the_report_has_the_same_bytes_whatever_the_executor(pool, flipped):
    job, ops = Job(flipped), OPS if pool is ThreadPoolExecutor else ("tanh",)
    alone = run(job, Plan(ops=ops, dtypes=("float32",), rounds=2))
    options = {"mp_context": get_context("spawn")} if pool is ProcessPoolExecutor else {}
    with pool(2, **options) as executor:
        spread = run(job, Plan(ops=ops, dtypes=("float32",), rounds=2), executor=executor)
    assert report(job, alone) == report(job, spread)
    assert {verdict.op for verdict in alone.failures()} == set(ops) - {"tanh"}


class Losing:
    """An executor whose first so many tasks are lost with their worker."""

    def __init__(self, losses):
        self.losses, self.submitted = losses, 0

    def submit(self, function, *arguments):
        self.submitted += 1
        future = Future()
        if self.submitted <= self.losses:
            future.set_exception(RuntimeError("worker gone"))
        else:
            future.set_result(function(*arguments))
        return future


def test_lost_workers_cost_nothing_if_their_cases_can_be_judged_again(flipped):
    job = Job(flipped)
    plan = Plan(OPS, ("float32",), rounds=1)
    assert report(job, run(job, plan, executor=Losing(2))) == report(job, run(job, plan))


def test_a_crash_of_a_worker_costs_its_own_cases_alone():
    """A process pool is broken for good by one lost worker."""
    job, plan = Job("tests.conformance.misbehaving:target_exits_on_nan", isolate=False), Plan(("tanh",), ("float32",), rounds=2)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        spread = run(job, plan, executor=executor)
    alone = run(Job(job.target, isolate=True), plan)
    levels = {key: verdict.level for key, verdict in spread.verdicts.items()}
    assert levels == {key: verdict.level for key, verdict in alone.verdicts.items()}
    assert Level.CRASH in levels.values()
    assert Level.EXACT in levels.values()


@pytest.mark.parametrize("workers", [None, 2])
def test_no_process_outlives_its_sweep(workers, monkeypatch):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(isolation.subprocess, "Popen", lambda *arguments, **options: started.append(popen(*arguments, **options)) or started[-1])
    executor = None if workers is None else ThreadPoolExecutor(workers)
    for _ in range(2):
        run(Job("tests.conformance.misbehaving:target_raises", isolate=True), Plan(("tanh",), ("float32",), rounds=1), executor=executor)
    if executor is not None:
        executor.shutdown()
    assert len(started) >= 2
    assert all(process.returncode is not None for process in started)


def test_cases_lost_twice_are_reported(flipped):
    sweep = run(Job(flipped), Plan(("tanh",), rounds=1), executor=Losing(10**6))
    assert {verdict.level for verdict in sweep.verdicts.values()} == {Level.CRASH}
    assert "its worker was lost twice" in next(iter(sweep.verdicts.values())).explanation


def test_an_interrupted_sweep_resumes_to_the_same_bytes(flipped, tmp_path):
    job, path, seen = Job(flipped), tmp_path / "report.json", []

    def step(sweep, planned):
        path.write_text(report(job, sweep))
        seen.append(planned)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, Plan(OPS, ("float32",), rounds=2), step=step)
    partial = json.loads(path.read_text())
    assert not partial["complete"]
    done = read_verdicts(path, SETTINGS)
    assert 0 < len(done) < seen[-1]
    asked = []
    whole = run(job, Plan(OPS, ("float32",), rounds=2), done=done, step=lambda sweep, planned: asked.append(len(sweep.verdicts)))
    assert report(job, whole) == report(job, run(job, Plan(OPS, ("float32",), rounds=2)))


def test_an_object_is_judged_by_threads_as_alone():
    job = Job(SimpleNamespace(tanh=np.tanh))
    with ThreadPoolExecutor(2) as executor:
        assert report(job, run(job, Plan(rounds=1), executor=executor)) == report(job, run(job, Plan(rounds=1)))


def test_an_object_cannot_be_isolated_and_an_unknown_target_is_refused():
    with pytest.raises(ArgumentError, match="`isolate` needs a target that is named"):
        Job(SimpleNamespace(tanh=np.tanh), isolate=True).runner()
    for spec in ("no_such_module_at_all", "numpy:no.such", "missing.py", "json", ""):
        with pytest.raises(ArgumentError):
            Job(spec).runner()
    with pytest.raises(ArgumentError, match="names no module"):
        Job("no_such_module_at_all", isolate=True).runner()


def test_a_target_may_declare_that_it_is_to_be_isolated(tmp_path):
    path = tmp_path / "alone.py"
    path.write_text("import numpy as np\nfrom npreparam.conformance import Declaration\ndeclaration = Declaration('alone', isolate=True)\n"
                    "tanh = np.tanh\n")
    for asked, kind in ((None, isolation.Isolated), (False, InProcess)):
        runner = Job(str(path), isolate=asked).runner()
        assert type(runner) is kind
        runner.close()
    with pytest.raises(ArgumentError, match="`isolate` needs a target that is named"):
        Job(SimpleNamespace(tanh=np.tanh, declaration=Declaration("alone", isolate=True))).runner()


def test_declarations_are_validated():
    for wrong in ({"momentum": "newest"}, {"running_variance": "best"}, {"dtypes": ("float8",)}, {"profiles": {"float32": "exact"}},
                  {"unsupported": {"conv3d": ("*",)}}):
        with pytest.raises(ArgumentError):
            Declaration("wrong", **wrong)
    with pytest.raises(ArgumentError, match="must be an npreparam"):
        Target.of(SimpleNamespace(tanh=np.tanh, declaration={"name": "x"}))


def test_reports_are_valid_and_hold_what_they_should(flipped, tmp_path):
    job = Job(flipped)
    sweep = run(job, Plan(OPS, rounds=1))
    found = record(job, job.runner().declaration, sweep, SETTINGS)
    path = tmp_path / "report.json"
    path.write_text(as_json(found))
    again = read_verdicts(path, SETTINGS)
    assert list(again) == list(sweep.verdicts)
    assert all(again[key].level is sweep.verdicts[key].level for key in again)
    assert sum(row["cases"] for row in found["summary"].values()) == len(sweep.verdicts)
    suites = ET.fromstring(as_junit(found).encode())
    assert sum(int(suite.get("failures")) for suite in suites) == len(sweep.failures()) > 0
    page = as_html(found)
    assert "does not conform" in page
    assert page.count("<tr>") == 2 + len(OPS) + len(sweep.failures())
    assert "<p>conv2d looks like: kernel flipped" in page


def test_text_of_a_target_cannot_break_a_report():
    verdict = Verdict(Level.ERROR, "tanh", "exact", "float32", "<b>", Key("tanh", "exact", "float32", 0, 0), explanation='raises E: <&"\x00\x1b]]>')
    found = record(Job("x"), Declaration("<script>"), Sweep({verdict.key: verdict}), SETTINGS)
    ET.fromstring(as_junit(found).encode())
    assert "<script>" not in as_html(found)
    json.loads(as_json(found))


def test_other_files_and_other_settings_are_not_resumed(tmp_path):
    path = tmp_path / "report.json"
    for text in ("", "{}", "[]", '{"verdicts": 3, "seed": 0}', '{"verdicts": [{"key": "x"}], "seed": 0}'):
        path.write_text(text)
        with pytest.raises(FormatError, match="is no report"):
            read_verdicts(path, SETTINGS)
    path.write_text('{"verdicts": [], "seed": 1}')
    with pytest.raises(FormatError, match="was made with seed 1, not 0"):
        read_verdicts(path, SETTINGS)


def test_failures_are_diagnosed_together_and_the_cases_are_trusted_as_far_as_they_would_catch_mistakes(flipped):
    sweep = run(Job(flipped), Plan(OPS, rounds=1))
    assert set(sweep.diagnosis) == {"conv2d"}
    assert sweep.diagnosis["conv2d"][0].startswith("kernel flipped in width")
    assert any(name.startswith("conv2d: kernel flipped") for name in sweep.caught)
    assert len(sweep.caught) > 20 * len(sweep.missed)


def test_known_failures_match_by_pattern_and_go_stale(flipped, tmp_path):
    path = tmp_path / "known.txt"
    path.write_text("# flipped\nconv2d/*  # kernel flipped\ntanh/exact/*\n\n")
    known, sweep = KnownFailures.read(path), run(Job(flipped), Plan(OPS, rounds=1))
    assert all(verdict in known for verdict in sweep.failures())
    assert known.stale(sweep.verdicts.values()) == ["tanh/exact/*"]
    path.write_text("a/b/c/d/e/f\n")
    with pytest.raises(FormatError, match="line 1 of"):
        KnownFailures.read(path)


def run_script(path):
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"}, check=False)


@pytest.mark.parametrize("key", ["conv2d/geometry/float32/0/9", "conv2d/random/float64/0/8", "conv2d/relation/float32/0/3"])
def test_a_failing_case_is_a_script_that_fails_for_the_target_and_passes_for_the_truth(key, flipped, tmp_path):
    case, runner = make_case(Key.parse(key)), InProcess(flipped)
    verdict, path = judge_case(case, runner), tmp_path / "case.py"
    assert verdict.level is Level.FAIL
    path.write_text(standalone(case, verdict, flipped, runner.declaration))
    done = run_script(path)
    assert done.returncode == 1
    assert " instead of " in done.stdout
    assert "npreparam" not in path.read_text().replace(flipped, "")
    (tmp_path / "flipped.py").write_text(FLIPPED.replace("w[..., ::-1]", "w"))
    assert run_script(path).returncode == 0


def test_a_script_runs_from_any_folder(flipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = make_case(Key.parse("conv2d/geometry/float32/0/9"))
    text = standalone(case, judge_case(case, InProcess("flipped.py")), "flipped.py", Declaration("mine"))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    (tmp_path / "case.py").write_text(text)
    found = run_script(tmp_path / "case.py")
    assert found.returncode == 1
    assert "instead of" in found.stdout  # and not a target that is not found


def test_a_script_has_layouts_tuples_and_narrow_formats(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    target = tmp_path / "strided.py"
    target.write_text("import numpy as np\ndef tanh(x):\n    return np.zeros_like(x) if x.strides[-1] == x.itemsize else x * x\n"
                      "def fuse_repvgg(w3, bn3, w1, bn1, bn_identity=None, groups=1):\n    return w3 * 2, bn3[1] * 2\n")
    x = np.ones((2, 3), ml_dtypes.bfloat16)
    bn = (*(np.ones(1, np.float32) for _ in range(4)), 1e-5)
    for case in (Case("tanh", {"x": x}, layout="strided"), Case("fuse_repvgg", {"w3": np.ones((1, 1, 3, 3), np.float32), "bn3": bn,
                                                                               "w1": np.ones((1, 1, 1, 1), np.float32), "bn1": bn})):
        runner = InProcess(Target(Target.of(str(target)).functions, Declaration("strided", dtypes=("bfloat16", "float32"))))
        verdict = judge_case(case, runner)
        assert verdict.level is Level.FAIL
        path = tmp_path / "case.py"
        path.write_text(standalone(case, verdict, str(target), runner.declaration))
        done = run_script(path)
        assert done.returncode == 1, done.stderr
        assert " instead of " in done.stdout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_same_numbers(layout):
    for x in (np.arange(24.0, dtype=np.float32).reshape(2, 3, 2, 2), np.arange(3), np.zeros((0, 2))):
        found = arranged((x, 1), layout)[0]
        assert (found == x).all()
        assert found.shape == x.shape
        assert not np.shares_memory(found, x)


def test_the_search_shrinks_to_the_smallest_failing_input_and_repeats_itself():
    def linear(x, w, b=None):
        y = ops.linear(x, w, b)
        return y * np.float32(1 + 2.0**-12) if x.shape[1] > 2 and np.abs(y).max() > 3 else y

    key = Key("linear", "search", "float32", 0, 0)
    runner = InProcess(SimpleNamespace(linear=linear))
    case, verdict = search(key, runner, examples=200)
    assert verdict.level is Level.FAIL
    assert case.arguments["x"].shape == (1, 3)
    assert case.arguments["w"].shape == (1, 3)
    assert search(key, runner, examples=200)[1] == verdict


def test_the_search_reports_the_worst_of_an_honest_target():
    case, verdict = search(Key("tanh", "search", "float64", 0, 0), InProcess("npreparam"))
    assert verdict.conforms
    assert case.op == "tanh"
