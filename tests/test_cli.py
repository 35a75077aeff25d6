"""The command line: everything promised is written, the same again from the same seed, and every refusal is one line."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("matplotlib")

from typer.testing import CliRunner

from npreparam import __version__, cli, ops
from npreparam.cli import output, tour
from npreparam.cli.app import app
from npreparam.fuse import identity_kernel
from npreparam.models import RepVGG
from tests.models.test_data import mnist, write
from tests.tolerances import assert_same_bits

FILES = {"fused.npz", "report.json", "report.txt", "loss_curves.png", "reconstructions.png", "samples.png", "branch_kernels.png"}
QUICK = ("--epochs", "1", "--vae-epochs", "1")


def run(*arguments):
    return CliRunner().invoke(app, ["tour", *map(str, arguments)])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with an MNIST of very few, small images."""
    return write(tmp_path_factory.mktemp("mnist"), mnist((6, 7), 40, 12))


def load(folder):
    report = json.loads((folder / "report.json").read_text())
    with np.load(folder / "fused.npz") as file:
        return report, dict(file)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The default tour on the bundled digits."""
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("tour") / "new" / "folder"
    result = run("--out", out)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_the_tour_writes_all_it_promises(full):
    out, _ = full
    assert {path.name for path in out.iterdir()} == FILES
    for name in FILES:
        if name.endswith("png"):
            assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_the_tour_keeps_its_claims(full):
    report, _ = load(full[0])
    assert report["test accuracy"] >= 0.96
    assert report["checks"] == dict.fromkeys(report["checks"], True)
    assert len(report["checks"]) == 7
    assert report["fusion"]["in float64"]["largest absolute difference"] <= report["fusion"]["in float64"]["largest bound"]
    fusion = report["fusion"]
    assert fusion["images"] == 360
    assert fusion["largest absolute difference"] > 0
    assert fusion["parameters fused"] < fusion["parameters multi-branch"]
    assert report["identity kernel"]["error of one at the centre"] == 0
    assert report["identity kernel"]["error of nine ones"] > 1
    assert report["held-out ELBO"]["after"] > report["held-out ELBO"]["before"]
    for curve in ("classifier loss", "vae loss"):
        assert len(report[curve]) == tour.CURVE
        assert report[curve][-1] < report[curve][0]
    assert report["gradients"]["dz/dmu"] == [1, 1]
    assert report["gradients"]["dz/dsigma"] == report["gradients"]["eps"]
    assert "does not depend on `mu`" in report["gradients"]["plain sample"]


def test_the_text_and_the_screen_say_the_same(full):
    out, screen = full
    report, _ = load(out)
    text = (out / "report.txt").read_text()
    for line in text.splitlines():
        if line and not line.startswith("---"):
            assert line in screen
    assert f"{100 * report['test accuracy']:.2f} %" in text
    assert report["gradients"]["plain sample"] in text
    assert "Every check held" in screen


def test_the_saved_weights_are_the_fused_network(full):
    pytest.importorskip("sklearn")
    report, state = load(full[0])
    digits = tour.load(None)
    network = RepVGG(1, rng=np.random.default_rng(0)).fuse()
    network.load_state_dict(state)
    accuracy = (network(digits.test_images).argmax(1) == digits.test_labels).mean()
    assert accuracy == report["test accuracy"]


def test_same_seed_same_bits(tiny, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run("--mnist", tiny, "--out", tmp_path / name, "--seed", seed, *QUICK).exit_code == 0
    (first, weights), (second, again), (third, others) = (load(tmp_path / name) for name in "abc")
    assert first.pop("timings").keys() == second.pop("timings").keys()
    third.pop("timings")
    assert first == second
    assert weights.keys() == again.keys()
    for name in weights:
        assert_same_bits(weights[name], again[name])
    for name in FILES:
        if not name.startswith("report"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert first["classifier loss"] != third["classifier loss"]
    assert any((weights[name] != others[name]).any() for name in weights)
    assert first["seed"] == 3
    assert first["data"] == "MNIST, 6x7"


def test_default_epochs_follow_the_amount_of_data(tiny):
    def epochs(count, *given):
        digits = tour.load(tiny)._replace(train_labels=np.zeros(count))
        made = tour.Tour(digits, 0, *(given or (None, None)), None)
        return made.epochs, made.vae_epochs

    assert epochs(1437) == (15, 40)
    assert epochs(60000) == (1, 1)
    assert epochs(60000, 2, 3) == (2, 3)


def refused(result, message):
    """Exit code 1 and one line."""
    assert result.exit_code == 1
    assert result.output.count("\n") == 1, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_an_occupied_folder_is_refused_untouched_unless_overwrite(tiny, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    refused(run("--mnist", tiny, "--out", tmp_path, *QUICK), f"--out (={tmp_path}) is not empty; name another folder, or pass --overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert run("--mnist", tiny, "--out", tmp_path, "--overwrite", *QUICK).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"mine.txt"}
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_folder_that_cannot_be_written_is_refused_before_training(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    refused(run("--mnist", tiny, "--out", tmp_path / "file"), "is a file; name a folder")
    refused(run("--mnist", tiny, "--out", tmp_path / "file" / "below"), "cannot be written: Not a directory; name another folder")

    def no_room(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(output.tempfile, "mkstemp", no_room)  # root may write everywhere, so a real folder would not do
    refused(run("--mnist", tiny, "--out", tmp_path / "new"), "cannot be written: Permission denied; name another folder")


def test_bad_data_is_one_line(tmp_path):
    refused(run("--mnist", tmp_path, "--out", tmp_path / "out"), "no train images; looked for train-images-idx3-ubyte, ")
    write(tmp_path, {name + ".gz": gzip.compress(content)[:-9] for name, content in mnist().items()})
    refused(run("--mnist", tmp_path, "--out", tmp_path / "out"), "cannot be read: Compressed file ended")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("module", "message"), [("sklearn.datasets", "pip install 'npreparam[data]'"),
                                                 ("matplotlib.figure", "pip install 'npreparam[plots]'")])
def test_a_missing_extra_is_one_line_before_training(module, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith("npreparam.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("npreparam.plots", raising=False)
    refused(run("--out", tmp_path / "out"), message)


@pytest.mark.parametrize("extra", ["typer", "rich"])
def test_a_missing_command_line_library_is_one_line(extra):
    code = f"import sys; sys.modules[{extra!r}] = None; from npreparam.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == f"npreparam: the command line needs {extra}: pip install 'npreparam[cli]'\n"


def test_another_import_error_is_not_mistaken_for_a_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "npreparam.cli.app", None)
    with pytest.raises(ImportError):
        cli.main()


@pytest.mark.parametrize("arguments", [("--seed", "-1"), ("--epochs", "0"), ("--vae-epochs", "x"), ("--no-such-option",)])
def test_bad_options_are_refused(arguments, tmp_path):
    assert run("--out", tmp_path / "out", *arguments).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_every_help_has_an_example_and_names_what_is_given():
    for command in ["", *(command.name or command.callback.__name__ for command in app.registered_commands)]:
        output = CliRunner().invoke(app, [*command.split(), "--help"]).output
        assert f"npreparam {command}".strip() in output.partition("Example")[2], command
        assert "{out}" not in output


def test_version_and_help():
    assert CliRunner().invoke(app, ["--version"]).output == f"npreparam {__version__}\n"
    assert "tour" in CliRunner().invoke(app, ["--help"]).output


def test_a_check_that_fails_fails_the_tour(tiny, tmp_path, monkeypatch):
    """Planted: the identity kernel of nine ones."""
    monkeypatch.setattr(tour, "identity_kernel", lambda channels: np.ones_like(identity_kernel(channels)))
    result = run("--mnist", tiny, "--out", tmp_path / "out", *QUICK)
    assert result.exit_code == 1
    assert "FAILED: centre kernel is the identity" in result.output
    report, _ = load(tmp_path / "out")
    assert not report["checks"]["centre kernel is the identity"]


def test_a_wrong_fusion_fails_the_tour(tiny, tmp_path, monkeypatch):
    """Planted: a deploy network with every number negated."""
    right = RepVGG.fuse

    def wrong(self):
        fused = right(self)
        fused.load_state_dict({name: -value for name, value in fused.state_dict().items()})
        return fused

    monkeypatch.setattr(RepVGG, "fuse", wrong)
    result = run("--mnist", tiny, "--out", tmp_path / "out", *QUICK)
    assert result.exit_code == 1
    assert "predictions DIFFER" in result.output


def test_a_fusion_without_eps_fails_the_tour_though_predictions_agree(tiny, tmp_path, monkeypatch):
    """Planted: batch norm folded without its eps, too small an error to change a prediction."""
    right = RepVGG.fuse

    def wrong(self):
        other = self.astype(self.linear.weight.dtype)
        for block in other.blocks:
            block.rbr_dense.bn.eps = 0.0
        return right(other)

    monkeypatch.setattr(RepVGG, "fuse", wrong)
    result = run("--mnist", tiny, "--out", tmp_path / "out", *QUICK)
    assert result.exit_code == 1
    assert "FAILED: fused and multi-branch agree within the bound of rounding errors\n" in result.output
    assert load(tmp_path / "out")[0]["checks"]["fused and multi-branch predictions identical"]


def test_a_sampler_without_noise_fails_the_tour(tiny, tmp_path, monkeypatch):
    """Planted: z = mu + sigma, with dz/dsigma = 1."""
    monkeypatch.setattr(ops, "normal_rsample", lambda mu, sigma, eps: ops.add(mu, sigma))
    result = run("--mnist", tiny, "--out", tmp_path / "out", *QUICK)
    assert result.exit_code == 1
    assert "FAILED: dz/dmu = 1 and dz/dsigma = eps" in result.output


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "file"
    output.write(path, b"first")
    assert path.read_bytes() == b"first"

    def broken(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="No space left"):
        output.write(path, b"second")
    monkeypatch.undo()
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_module_runs_like_the_console_script():
    result = subprocess.run([sys.executable, "-m", "npreparam", "--version"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"npreparam {__version__}\n")
