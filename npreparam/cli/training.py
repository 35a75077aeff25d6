"""What `npreparam train` does: a session with a progress bar, checkpoints that are whole or absent, pictures, curves and a summary."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from npreparam._errors import ArgumentError, FormatError, StateError
from npreparam.cli.output import prepare_folder, remove_parts, write, write_arrays, write_figure, write_json
from npreparam.models import IWAE, VAE, Autoencoder, ConvVAE, Images, Session, evaluate, log_likelihood

CHECKPOINT = "checkpoint.npz"
MODELS = ("vae", "iwae", "autoencoder")
SHOWN, SAMPLES = 10, 60
TRAVERSED, STEPS = 10, 11  # latent dimensions of the picture, and values of each from -REACH to REACH
REACH = 3.0
SIDE = 20  # of the manifold
SUMMARY_SEED = 3


class Stop:
    """Whether Ctrl-C was pressed: a step that has begun is finished first, so that what is saved is whole."""

    asked = False


@contextlib.contextmanager
def interruptible() -> Iterator[Stop]:
    """The first Ctrl-C within the block asks to stop, the second stops at once."""
    stop = Stop()

    def first(*_: Any) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def make_model(kind: str, image: tuple[int, ...], options: dict[str, Any], rng: np.random.Generator) -> VAE:
    """The model of a command line; `options` has hidden, latent, likelihood, beta, samples, convolutional."""
    if kind not in MODELS:
        raise ArgumentError(f"MODEL (={kind}) must be one of {', '.join(MODELS)}")
    common = {"latent": options["latent"], "likelihood": options["likelihood"], "rng": rng}
    if options["convolutional"]:
        if kind != "vae":
            raise ArgumentError(f"--convolutional is for MODEL vae, not {kind}")
        return ConvVAE(image, beta=options["beta"], **common)
    if options["beta"] != 1 and kind != "vae":
        raise ArgumentError(f"--beta (={options['beta']}) is for MODEL vae, not {kind}")
    if kind == "iwae":
        return IWAE(image, options["hidden"], samples=options["samples"], **common)
    return Autoencoder(image, options["hidden"], **common) if kind == "autoencoder" else VAE(image, options["hidden"], beta=options["beta"], **common)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The arrays of a checkpoint, or FormatError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is none to resume; leave out --resume") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: cannot be read as a checkpoint: {error}") from None


class Training:
    """One run of the command."""

    def __init__(self, kind: str, images: Images, options: dict[str, Any], console: Console) -> None:
        from npreparam import plots  # now, so that a missing extra is not found out after the training

        self.plots, self.console, self.images, self.options = plots, console, images, options
        model = make_model(kind, images.train.shape[1:], options, np.random.default_rng([options["seed"], 0]))
        about = {"model": kind, "data": images.name, **{name: options[name] for name in
                                                        ("hidden", "latent", "likelihood", "beta", "samples", "convolutional")}}
        self.session = Session(model, images.train, images.test, rate=options["rate"], batch=min(options["batch"], len(images.train)),
                               seed=options["seed"], about=about, optimizer=options["optimizer"])

    def prepare(self, out: Path, overwrite: bool, resume: bool) -> None:
        """The folder, empty or with this run's checkpoint restored; nothing in it is touched before that is certain."""
        path = out / CHECKPOINT
        if resume:
            try:
                self.session.restore(load_checkpoint(path))
            except StateError as error:
                raise StateError(f"{path}: cannot be resumed: {error}; nothing was changed") from None
        prepare_folder(out, overwrite or resume)
        remove_parts(out)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def run(self, out: Path) -> bool:
        """Train, save, draw; False where Ctrl-C stopped it before the end."""
        session, epochs = self.session, self.options["epochs"]
        self.say(f"{self.images.name}: {len(self.images.train)} images to train with, {len(self.images.test)} held out; seed {session.seed}; "
                 + (f"{epochs} epochs" if not session.optimizer.steps else f"resumed in epoch {session.epoch + 1}" if session.epoch < epochs
                    else f"resumed after epoch {session.epoch}: nothing is left to train for --epochs {epochs}"))
        begin = time.perf_counter()
        self.save(out)
        with interruptible() as stop:
            try:
                self._train(out, epochs, stop)
            except KeyboardInterrupt:
                self.say("Stopped at once: the last checkpoint stands.")
                return False
        self.save(out)
        self.finish(out, time.perf_counter() - begin)
        finished = session.epoch >= epochs
        if not finished:
            self.say(f"Stopped in epoch {session.epoch + 1} of {epochs}; --resume goes on from here.")
        return finished

    def _train(self, out: Path, epochs: int, stop: Stop) -> None:
        session = self.session
        columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
                   TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task("", total=epochs * session.steps, completed=session.optimizer.steps, epoch=min(session.epoch + 1, epochs),
                                loss=float("nan"))

            def after_step(session: Session) -> bool:
                if session.optimizer.steps % self.options["every"] == 0:
                    self.save(out)
                bar.update(task, completed=session.optimizer.steps, loss=session.losses[-1], epoch=session.epoch + 1)
                return not stop.asked

            def after_epoch(session: Session) -> None:
                self.save(out)
                told = (f"{name} {value:.4g}" for name, value in session.history[-1].items() if name != "epoch")
                self.say(f"epoch {session.epoch}: {', '.join(told)}")

            session.run(epochs, after_step, after_epoch)

    def save(self, out: Path) -> None:
        """The checkpoint, and the history as CSV and JSON lines."""
        write_arrays(out / CHECKPOINT, self.session.state())
        history = self.session.history
        write(out / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history).encode())
        buffer = io.StringIO()
        if history:
            table = csv.DictWriter(buffer, list(history[0]))
            table.writeheader()
            table.writerows(history)
        write(out / "history.csv", buffer.getvalue().encode())

    def finish(self, out: Path, seconds: float) -> None:
        """Pictures and the summary."""
        model, test, history = self.session.model, self.session.test, self.session.history
        rng = np.random.default_rng([self.session.seed, SUMMARY_SEED])
        if history:
            curves = {name: [row[name] for row in history] for name in ("train loss", "test loss")}
            write_figure(out / "loss_curves.png", self.plots.loss_curves(curves))
        write_figure(out / "reconstructions.png",
                     self.plots.tiles(np.stack([test[:SHOWN], model(test[:SHOWN])]), "held-out images and their reconstructions"))
        write_figure(out / "samples.png",
                     self.plots.tiles(model.sample(SAMPLES, rng).reshape(-1, SHOWN, *model.image), "samples decoded from N(0, 1)"))
        write_figure(out / "traversal.png", self.plots.tiles(traversal(model, test[:1]), "each row: one latent dimension from -3 to 3"))
        if model.latent == 2:
            write_figure(out / "manifold.png", self.plots.tiles(manifold(model), "the decoder over the quantiles of N(0, 1) x N(0, 1)"))
        found = evaluate(model, test, rng)
        summary = {"epochs": self.session.epoch, "steps": self.session.optimizer.steps, "seed": self.session.seed,
                   "test loss per image": float(found.loss.mean()), "test KL per image": float(found.kl.sum(1).mean()),
                   "active units": int(found.active.sum()),
                   "latent dimensions": model.latent, "KL of each latent dimension": found.kl.mean(0).tolist()}
        if self.options["nll"]:
            estimate = log_likelihood(model, test, rng, self.options["nll"])
            summary |= {"test NLL per image": -estimate.mean, "standard error": estimate.standard_error, "NLL samples": self.options["nll"]}
        write_json(out / "summary.json", {**summary, "seconds": seconds})
        self.say(f"Held out: loss {summary['test loss per image']:.3f} nats per image, KL {summary['test KL per image']:.3f}, "
                 f"{summary['active units']} of {model.latent} latent dimensions active.")
        if self.options["nll"]:
            self.say(f"NLL {-estimate.mean:.3f} +- {estimate.standard_error:.3f} (standard error), {self.options['nll']} importance samples.")
        self.say(f"See {out}/summary.json and the pictures beside it.")


def traversal(model: VAE, image: Any) -> Any:
    """Pixel means (dimensions, STEPS, channels, height, width): an image's code with one latent dimension after the other changed."""
    code, _ = model.encode(image)
    shown = min(model.latent, TRAVERSED)
    z = np.broadcast_to(code[0], (shown, STEPS, model.latent)).copy()
    for i in range(shown):
        z[i, :, i] = np.linspace(-REACH, REACH, STEPS)
    return model.means(z.reshape(-1, model.latent)).reshape(shown, STEPS, *model.image)


def manifold(model: VAE) -> Any:
    """Pixel means (SIDE, SIDE, channels, height, width) over a grid of equal probability in a plane of codes."""
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / SIDE) for i in range(SIDE)], model.to_mu.weight.dtype)
    z = np.stack(np.meshgrid(quantiles, quantiles[::-1]), -1).reshape(-1, 2)
    return model.means(z).reshape(SIDE, SIDE, *model.image)
