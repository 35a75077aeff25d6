"""`npreparam judge`: exit status, files, interruption and resumption."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from npreparam.cli.app import app
from tests.conformance.test_sweep import FLIPPED, run_script

OPTIONS = ("--rounds", "1", "--ops", "conv2d,tanh")


def judge(*arguments):
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "flipped.py"
    path.write_text(FLIPPED)
    return path


def test_npreparam_conforms_in_a_process_of_its_own():
    result = judge("npreparam", "--rounds", "1", "--ops", "tanh,max_pool2d")
    assert result.exit_code == 0, result.output
    assert "conforms" in result.output


def test_a_wrong_target_does_not_conform_and_every_file_says_so(target, tmp_path):
    files = {name: tmp_path / f"report.{name}" for name in ("json", "html", "junit")}
    result = judge(target, *OPTIONS, "--scripts", tmp_path / "scripts", *(word for name, path in files.items() for word in (f"--{name}", path)))
    assert result.exit_code == 1, result.output
    assert "FAIL conv2d/exact/float32" in result.output
    assert not json.loads(files["json"].read_text())["conforms"]
    assert all(path.stat().st_size for path in files.values())
    scripts = list((tmp_path / "scripts").iterdir())
    assert scripts
    assert run_script(scripts[0]).returncode == 1
    known = tmp_path / "known"
    known.write_text("conv2d/*  # kernel flipped\n")
    result = judge(target, *OPTIONS, "--known-failures", known)
    assert result.exit_code == 0
    assert "in 1 round, conforms, but for the known failures" in result.output
    assert not result.output.startswith("\n")      # where a bar would be, if this were a terminal


@pytest.mark.parametrize("arguments", [("no_such_target_module",), ("npreparam", "--ops", "conv3d"), ("npreparam", "--ops", ","),
                                       ("npreparam", "--budget", "soon"), ("npreparam", "--profile", "exact"), ("npreparam", "--resume"),
                                       ("npreparam", "--json", "no/such/folder/report.json"), ("npreparam", "--dtypes", "float8")])
def test_what_cannot_run_has_status_2_and_one_line(arguments):
    result = judge(*arguments)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("npreparam judge: ")


def test_the_mistakes_that_the_cases_would_not_have_caught_are_told(target, tmp_path):
    page, report = tmp_path / "report.html", tmp_path / "report.json"
    result = judge("npreparam", "--rounds", "1", "--ops", "softplus", "--dtypes", "float32", "--html", page, "--json", report)
    found = json.loads(report.read_text())["known mistakes"]
    assert found["missed"]
    counts = f"caught {len(found['caught'])} of {len(found['caught']) + len(found['missed'])}"
    told = f"{counts} known mistakes of these functions, but not {found['missed'][0]}"
    assert told in result.output
    assert told in page.read_text()


def test_a_budget_that_ends_in_the_first_round_is_told_to():
    told = judge("npreparam", "--budget", "0.001s", "--ops", "tanh,silu").output
    assert ": 1 case in a part of the first round, conforms, as far as 1 of the " in told
    assert "the budget ended before any case of tanh in float64, silu: nothing is known of them" in told


def test_the_first_failure_is_enough_with_fail_fast(target, tmp_path):
    report = tmp_path / "report.json"
    result = judge(target, "--fail-fast", "--json", report)
    assert result.exit_code == 1, result.output
    assert "conv2d looks like: kernel flipped" in result.output
    assert "1 failure\n" in result.output


BROKEN = """
import numpy as np
from types import SimpleNamespace
def raises(*arguments, **options):
    raise RuntimeError("no device found")
def later(*arguments, **options):
    raise NotImplementedError("later")
def partly(x):
    return np.tanh(x) if x.dtype == np.float32 else raises()
def shifted(x):
    return np.tanh(x)[..., None]
raising, absent = SimpleNamespace(tanh=raises, softplus=raises), SimpleNamespace(tanh=later)
partial, wrong = SimpleNamespace(tanh=partly), SimpleNamespace(tanh=shifted)
"""


@pytest.mark.parametrize(("attribute", "told"), [("raising", "has an answer; {} of them: raises RuntimeError: no device found"),
                                                 ("absent", "is offered; {} of them: not implemented: later")])
def test_a_target_without_any_answer_could_not_run(attribute, told, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    report = tmp_path / "report.json"
    result = judge(f"{tmp_path / 'broken.py'}:{attribute}", "--rounds", "1", "--json", report)
    assert result.exit_code == 2, result.output
    count = len(json.loads(report.read_text())["verdicts"])
    assert f"could not run: none of {count} cases {told.format(count)}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not json.loads(report.read_text())["conforms"]


@pytest.mark.parametrize("attribute", ["partial", "wrong"])
def test_a_target_with_some_answers_does_not_conform(attribute, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    assert judge(f"{tmp_path / 'broken.py'}:{attribute}", "--rounds", "1").exit_code == 1


@pytest.mark.parametrize("isolate", ["--isolate", "--no-isolate"])
@pytest.mark.parametrize("error", ["RuntimeError('no device found')", "ValueError('bad number')", "SystemExit('no device found')"])
def test_a_target_that_cannot_be_imported_could_not_run(error, isolate, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(f"raise {error}\n")
    result = judge(path, isolate)
    assert result.exit_code == 2, result.output
    assert "cannot be imported: " + error.partition("(")[0] in result.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_a_report_that_can_be_resumed(sent, target, tmp_path):
    path, options = tmp_path / "report.json", ("--ops", "conv2d,tanh", "--seed", "3")
    program = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background inherits that it is ignored
               "import npreparam.cli.judge as j; j.SAVE_SECONDS = 0; from npreparam.cli import main; main()")
    command = [sys.executable, "-c", program, "judge", str(target), "--budget", "10m", "--json", str(path), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ) as process:
        while not path.exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(sent)
        try:
            status = process.wait(60)
        finally:
            process.kill()
    assert status == (2 if sent == signal.SIGINT else -signal.SIGKILL)
    partial = json.loads(path.read_text())
    assert not partial["complete"]
    assert partial["verdicts"]
    assert judge(target, *options, "--rounds", "1", "--json", path, "--resume").exit_code == 1
    resumed = path.read_bytes()
    assert json.loads(resumed)["complete"]
    assert judge(target, *options, "--rounds", "1", "--json", path).exit_code == 1
    assert path.read_bytes() == resumed
