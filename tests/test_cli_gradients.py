"""`npreparam gradients`: the table is what the report says, and the exact column is what the samples show."""

import json
import math
import re
import sys

import pytest

pytest.importorskip("typer")
pytest.importorskip("matplotlib")

from typer.testing import CliRunner

from npreparam.cli import gradients, output
from npreparam.cli.app import app
from npreparam.prob import quadratic_moments

FILES = {"gradients.json", "gradients_mu.png", "gradients_sigma.png"}
QUICK = ("--samples", "2000")


def run(*arguments):
    return CliRunner().invoke(app, ["gradients", *map(str, arguments)])


def load(folder):
    return json.loads((folder / "gradients.json").read_text())


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    out = tmp_path_factory.mktemp("gradients") / "new" / "folder"
    result = run("--samples", 20_000, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_everything_promised_is_written(lesson):
    out, _ = lesson
    assert {path.name for path in out.iterdir()} == FILES
    for name in FILES - {"gradients.json"}:
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_the_screen_and_the_report_say_the_same(lesson):
    out, screen = lesson
    report = load(out)
    assert report["setting"] == {"mu": 1, "sigma": 1, "k": -3}
    assert list(report["gradients"]) == ["mu", "sigma"]
    for name, rows in report["gradients"].items():
        assert f"Gradient with respect to {name}: {rows[0]['true gradient']:g}" in screen
        assert [line["estimator"] for line in rows] == list(gradients.ESTIMATORS)
        for line in rows:
            numbers = [f"{line['mean']:.5g}", f"{line['standard error']:.2g}", f"{line['variance simulated']:.5g}", f"{line['variance exact']:.5g}"]
            pattern = re.escape(line["estimator"]) + r"\W+" + r".*".join(map(re.escape, numbers))
            assert re.search(pattern, screen), pattern


def test_the_exact_column_is_generative_s_table(lesson):
    rows = {name: {line["estimator"]: line for line in rows} for name, rows in load(lesson[0])["gradients"].items()}
    exact = quadratic_moments(1.0, 1.0, -3.0, 20_000)
    for name, lines in rows.items():
        for estimator, line in lines.items():
            assert (line["true gradient"], line["variance exact"]) == exact[estimator][name]
    assert rows["mu"]["score function"]["variance exact"] == 495
    assert rows["sigma"]["pathwise"]["variance exact"] == 72


def test_the_means_are_near_the_true_gradient(lesson):
    """Within 7 standard errors of the exact variance: at most 2^-38 each by the normal law, and the seed is fixed."""
    for rows in load(lesson[0])["gradients"].values():
        for line in rows:
            assert abs(line["mean"] - line["true gradient"]) <= 7 * math.sqrt(line["variance exact"] / 20_000)


def test_the_plain_sample_is_shown_to_have_no_gradient(lesson):
    out, screen = lesson
    message = load(out)["plain sample"]
    assert "does not depend on `mu`" in message
    assert "`sigma`" in message
    assert message in screen


def test_same_seed_same_bits(lesson, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        assert run("--samples", 20_000, "--seed", seed, "--out", tmp_path / name).exit_code == 0
    for name in FILES:
        assert (tmp_path / "same" / name).read_bytes() == (lesson[0] / name).read_bytes()
    assert load(tmp_path / "other")["gradients"] != load(lesson[0])["gradients"]


def test_an_estimator_without_variance_is_drawn_too(tmp_path):
    """mu = k = 0: the measure-valued gradient for mu is 0 for every sample."""
    assert run("--samples", 2, "--mu", 0, "--k", 0, "--out", tmp_path).exit_code == 0
    line = next(line for line in load(tmp_path)["gradients"]["mu"] if line["estimator"] == "measure-valued")
    assert (line["mean"], line["variance simulated"], line["variance exact"]) == (0, 0, 0)


@pytest.mark.parametrize(("arguments", "message"), [
    (("--sigma", "0"), "`sigma` (=0.0) must be positive"),
    (("--sigma", "nan"), "`sigma` (=nan) must be finite"),
    (("--mu", "inf"), "`mu` (=inf) must be finite"),
    (("--mu", "1e200"), "lead to variances beyond float64"),
    (("--sigma", "1e-200"), "lead to variances beyond float64"),
    (("--samples", "99999999999"), "must be at most 10,000,000"),
])
def test_refusals_are_one_line_and_leave_nothing_behind(arguments, message, tmp_path):
    result = run(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.output.count("\n") == 1, result.output
    assert message in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("--samples", "1"), ("--seed", "-1"), ("--mu", "x"), ("--no-such-option",)])
def test_bad_options_are_refused(arguments, tmp_path):
    assert run("--out", tmp_path / "out", *arguments).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_an_occupied_folder_is_left_alone_unless_overwrite(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    result = run(*QUICK, "--out", tmp_path)
    assert result.exit_code == 1
    assert "is not empty; name another folder, or pass --overwrite" in result.output
    assert run(*QUICK, "--out", tmp_path, "--overwrite").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"mine.txt"}


def test_a_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output.os, "replace", full)
    result = run(*QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_extra_is_one_line_before_sampling(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for name in [name for name in sys.modules if name.startswith("npreparam.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("npreparam.plots", raising=False)
    result = run(*QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'npreparam[plots]'" in result.output
    assert not (tmp_path / "out").exists()


def test_planted_a_plain_sample_that_can_be_differentiated_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "plain_sample", lambda setting, seed: "")
    result = run(*QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "npreparam gradients: a plain sample was differentiated" in result.output


def test_the_help_has_an_example():
    assert "npreparam gradients --mu 1 --sigma 0.5" in " ".join(re.sub(r"[│╭╮╰╯─]", " ", run("--help").output).split())
