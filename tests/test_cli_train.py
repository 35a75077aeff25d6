"""`npreparam train`: all files, exact resume after Ctrl-C and kill -9 alike, every refusal one line that loses nothing."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("matplotlib")

from typer.testing import CliRunner

from npreparam.cli import output, training
from npreparam.cli.app import app
from npreparam.models import Session
from tests.models.test_data import mnist, write
from tests.tolerances import assert_same_bits

FILES = {"checkpoint.npz", "history.csv", "history.jsonl", "loss_curves.png", "reconstructions.png", "samples.png", "summary.json",
         "traversal.png"}
SMALL = ("--hidden", "8", "--latent", "2", "--batch", "8", "--rate", "0.01")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of 30 small images, 24 to train with."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=(rng.random((30, 1, 1)) * np.linspace(0, 1, 30).reshape(5, 6)).astype(np.float32))
    return path


def train(data, out, *arguments, model="vae", epochs=3):
    return run("train", model, "--data", data, "--out", out, "--epochs", epochs, *SMALL, *arguments)


def checkpoint(out):
    with np.load(out / "checkpoint.npz") as file:
        return dict(file)


def assert_same_checkpoint(a, b):
    a, b = checkpoint(a), checkpoint(b)
    assert a.keys() == b.keys()
    for name in a:
        assert_same_bits(a[name], b[name])


@pytest.fixture(scope="module")
def full(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "out"
    result = train(data, out, "--nll", "20")
    assert result.exit_code == 0, result.output
    return out, result.output


def test_everything_is_written(full):
    out, screen = full
    assert {path.name for path in out.iterdir()} == FILES | {"manifold.png"}
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    with open(out / "history.csv") as file:
        assert [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)] == rows
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["steps"] == 9
    assert len(summary["KL of each latent dimension"]) == 2
    assert f"loss {summary['test loss per image']:.3f} nats per image" in screen
    assert f"NLL {summary['test NLL per image']:.3f} +- {summary['standard error']:.3f}" in screen


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(data, full, tmp_path):
    for name, seed in (("a", "0"), ("b", "1")):
        assert train(data, tmp_path / name, "--seed", seed).exit_code == 0
    assert_same_checkpoint(full[0], tmp_path / "a")
    assert (checkpoint(tmp_path / "b")["model/to_mu.weight"] != checkpoint(full[0])["model/to_mu.weight"]).any()


@pytest.mark.parametrize("arguments", [("--model", "iwae", "--samples", "3"), ("--model", "autoencoder"),
                                       ("--likelihood", "gaussian", "--latent", "3"),
                                       ("--likelihood", "continuous_bernoulli", "--beta", "4"), ("--convolutional",),
                                       ("--optimizer", "adagrad")])
def test_every_model_trains(data, tmp_path, arguments):
    model = arguments[1] if arguments[0] == "--model" else "vae"
    result = train(data, tmp_path / "out", *(arguments[2:] if arguments[0] == "--model" else arguments), model=model, epochs=1)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES


def test_digits_and_mnist_by_name(tmp_path):
    write(tmp_path, mnist((6, 7), 40, 12))
    result = run("train", "vae", "--data", "mnist", "--mnist", tmp_path, "--out", tmp_path / "out", "--epochs", "1", *SMALL)
    assert result.exit_code == 0, result.output
    assert "MNIST, 6x7: 40 images to train with, 12 held out" in result.output


def test_more_epochs_later_are_the_same_as_at_once(data, full, tmp_path):
    assert train(data, tmp_path / "out", epochs=1).exit_code == 0
    result = train(data, tmp_path / "out", "--resume")
    assert result.exit_code == 0, result.output
    assert "resumed in epoch 2" in result.output
    assert_same_checkpoint(full[0], tmp_path / "out")


def test_a_finished_run_resumed_is_told_so_and_unchanged(data, full, tmp_path):
    assert train(data, tmp_path / "out").exit_code == 0
    for epochs in (3, 2):  # nothing is left, or more was done than is asked for
        result = train(data, tmp_path / "out", "--resume", epochs=epochs)
        assert result.exit_code == 0, result.output
        assert f"resumed after epoch 3: nothing is left to train for --epochs {epochs}" in result.output
        assert "epoch 4" not in result.output
        assert_same_checkpoint(full[0], tmp_path / "out")


def test_ctrl_c_while_the_last_epoch_ends_stops_nothing(data, full, tmp_path, monkeypatch):
    end_epoch = Session.end_epoch

    def interrupted(self):
        end_epoch(self)
        if self.epoch == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Session, "end_epoch", interrupted)
    result = train(data, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "epoch 4" not in result.output
    assert_same_checkpoint(full[0], tmp_path / "out")


@pytest.mark.parametrize("at", [1, 3, 5])
def test_ctrl_c_saves_and_resumes_exactly(data, full, tmp_path, monkeypatch, at):
    """Step 3 is the last one of an epoch."""
    step, done, handler = Session.step, [], signal.getsignal(signal.SIGINT)

    def interrupted(self):
        done.append(1)
        if len(done) == at:
            os.kill(os.getpid(), signal.SIGINT)
        step(self)

    monkeypatch.setattr(Session, "step", interrupted)
    result = train(data, tmp_path / "out")
    monkeypatch.undo()
    assert result.exit_code == 130, result.output
    assert "--resume goes on from here" in result.output
    assert json.loads(str(checkpoint(tmp_path / "out")["told"]))["steps"] == at
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES - {"loss_curves.png"}
    assert train(data, tmp_path / "out", "--resume").exit_code == 0
    assert_same_checkpoint(full[0], tmp_path / "out")
    assert signal.getsignal(signal.SIGINT) is handler


def test_what_a_killed_run_left_half_written_goes_and_what_a_user_left_stays(data, tmp_path):
    assert train(data, tmp_path / "run", epochs=1).exit_code == 0
    parts = [tmp_path / "run" / f".{name}.abcd_123.part" for name in ("checkpoint.npz", "history.jsonl", "samples.png")]
    mine = [tmp_path / "run" / name for name in ("checkpoint.npz.bak", "history.jsonl_backup1")]
    for path in parts + mine:
        path.write_bytes(b"half")
    assert train(data, tmp_path / "run", "--resume", epochs=2).exit_code == 0
    assert [path.exists() for path in parts + mine] == [False] * 3 + [True] * 2



def test_killed_at_any_moment_it_resumes_exactly(data, tmp_path):
    """kill -9 some milliseconds after some checkpoint, thrice; then to the end."""
    epochs, out = 120, tmp_path / "killed"
    command = [sys.executable, "-m", "npreparam", "train", "vae", "--data", str(data), "--out", str(out), "--epochs", str(epochs), *SMALL,
               "--every", "1"]
    reached = []
    for delay in (0.0, 0.013, 0.031):
        with subprocess.Popen([*command, *(["--resume"] if reached else [])], stdout=subprocess.DEVNULL) as process:
            before = (out / "checkpoint.npz").stat().st_mtime_ns if reached else None
            while not (out / "checkpoint.npz").exists() or (out / "checkpoint.npz").stat().st_mtime_ns == before:
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(delay)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        reached.append(json.loads(str(checkpoint(out)["told"]))["steps"])
    assert reached == sorted(reached)
    assert reached[-1] < 3 * epochs
    assert train(data, out, "--resume", epochs=epochs).exit_code == 0
    assert train(data, tmp_path / "whole", epochs=epochs).exit_code == 0
    assert_same_checkpoint(out, tmp_path / "whole")
    assert {path.name for path in out.iterdir()} == FILES | {"manifold.png"}  # nothing half-written is left


@pytest.mark.parametrize("at", range(8))
def test_a_failure_between_writing_and_renaming_leaves_a_whole_checkpoint(data, full, tmp_path, monkeypatch, at):
    """As kill -9 there would, but for certain; the run is resumed with the file that was there before."""
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) > at + 1:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(output.os, "replace", failing)
    result = train(data, tmp_path / "out", "--every", "1")
    assert result.exit_code == 1
    assert "Input/output error" in result.output
    monkeypatch.undo()
    assert train(data, tmp_path / "out", "--resume").exit_code == 0
    assert_same_checkpoint(full[0], tmp_path / "out")


def refused(result, message):
    """Exit status 1 and one line."""
    assert result.exit_code == 1, result.output
    assert result.output.count("\n") == 1, result.output
    assert message in result.output


def test_a_checkpoint_of_another_run_is_refused_and_stays(data, full, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint.npz").write_bytes((full[0] / "checkpoint.npz").read_bytes())
    for arguments, message in (((*SMALL, "--latent", "3"), "latent is 2 there and 3 here; nothing was changed"),
                               ((*SMALL, "--seed", "4"), "seed is 0 there and 4 here")):
        refused(run("train", "vae", "--data", data, "--out", tmp_path / "out", "--resume", *arguments), message)
    refused(run("train", "iwae", "--data", data, "--out", tmp_path / "out", "--resume", *SMALL), "model is 'vae' there and 'iwae' here")
    refused(run("train", "vae", "--data", "digits", "--out", tmp_path / "out", "--resume", *SMALL), "it is of another run: data is")
    assert_same_checkpoint(full[0], tmp_path / "out")


def test_a_broken_or_missing_checkpoint_is_one_line(data, tmp_path):
    refused(train(data, tmp_path / "none", "--resume"), "there is none to resume; leave out --resume")
    assert not (tmp_path / "none").exists()
    assert train(data, tmp_path / "out", epochs=1).exit_code == 0
    content = (tmp_path / "out" / "checkpoint.npz").read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "out" / "checkpoint.npz").write_bytes(content[:length])
        refused(train(data, tmp_path / "out", "--resume"), "cannot be read as a checkpoint")
    np.savez(tmp_path / "out" / "checkpoint.npz", x=np.zeros(3))
    refused(train(data, tmp_path / "out", "--resume"), "it holds no training run")


BAD = {
    "an unknown model": (("gan",), "MODEL (=gan) must be one of vae, iwae, autoencoder"),
    "an unknown likelihood": (("vae", "--likelihood", "poisson"), "`likelihood` (='poisson') must be one of"),
    "beta of an IWAE": (("iwae", "--beta", "2"), "--beta (=2.0) is for MODEL vae, not iwae"),
    "a convolutional IWAE": (("iwae", "--convolutional"), "--convolutional is for MODEL vae, not iwae"),
    "a rate of 0": (("vae", "--rate", "0"), "`rate` (=0.0) must be positive"),
    "a name that is none": (("vae", "--data", "diggits"), "`data` (='diggits') must be 'digits', 'mnist', 'frey' or an npz file"),
    "a missing file": (("vae", "--data", "nothing.npz"), "nothing.npz: cannot be read as npz"),
    "a rate that diverges": (("vae", "--rate", "1e30", "--epochs", "9"), "the loss of held-out images is not finite after epoch 1; a smaller"),
}


@pytest.mark.parametrize("row", BAD)
def test_bad_options_are_one_line(row, data, tmp_path):
    (model, *arguments), message = BAD[row]
    given = () if "--data" in arguments else ("--data", data)
    result = run("train", model, *given, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 1, result.output
    assert message in result.output.splitlines()[-1]
    assert "Traceback" not in result.output


def test_an_occupied_folder_is_refused(data, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    refused(train(data, tmp_path), "is not empty; name another folder, or pass --overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_traversal_and_manifold_decode_what_they_say():
    options = {"hidden": 8, "latent": 2, "likelihood": "bernoulli", "beta": 1.0, "samples": 1, "convolutional": False}
    model = training.make_model("vae", (1, 5, 6), options, np.random.default_rng(0))
    image = np.random.default_rng(1).random((1, 1, 5, 6)).astype(np.float32)
    shown = training.traversal(model, image)
    code = model.encode(image)[0]
    code[0, 1] = -training.REACH
    assert_same_bits(shown[1, 0], model.means(code)[0])
    plane = training.manifold(model)
    assert plane.shape == (training.SIDE, training.SIDE, 1, 5, 6)
    assert (plane[0, 0] != plane[0, 1]).any()
