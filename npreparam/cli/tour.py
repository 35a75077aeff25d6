"""The tour: both kinds of re-parameterization on real handwritten digits, each claim checked while it is shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from npreparam import ops
from npreparam._errors import UnusedInputError
from npreparam.cli.output import write, write_arrays, write_figure, write_json
from npreparam.fuse import identity_kernel
from npreparam.models import VAE, Digits, RepVGG, classifier_loss, fit, fusion_bound, load_mnist, load_sklearn_digits, predict, vae_loss
from npreparam.nn import Adam, Sequential, count_parameters
from npreparam.tape import Tensor, grad

BATCH = 64
RATE = 2e-3
CLASSIFIER_STEPS, VAE_STEPS = 330, 880  # of training by default, but at least one epoch
SHOWN = 10  # images of the picture of reconstructions
SAMPLES = 40
CURVE = 40  # points of a loss curve, each the mean of consecutive steps
TIMED = 15  # runs of each network, alternating
TIMED_IMAGES = 256
BOUNDED_IMAGES = 256


def load(mnist: Path | None) -> Digits:
    """The bundled digits, or MNIST from a folder."""
    return load_sklearn_digits() if mnist is None else load_mnist(mnist)


class Tour:
    """One run of the tour; `report` collects its figures, `timings` those that differ from run to run."""

    def __init__(self, digits: Digits, seed: int, epochs: int | None, vae_epochs: int | None, console: Console) -> None:
        from npreparam import plots  # now, so that a missing extra is not found out after the training

        self.digits, self.console, self.plots = digits, console, plots
        self.batch = min(BATCH, len(digits.train_labels))
        steps = len(digits.train_labels) // self.batch
        self.epochs = epochs or max(1, CLASSIFIER_STEPS // steps)
        self.vae_epochs = vae_epochs or max(1, VAE_STEPS // steps)
        self.rng, self.seed = np.random.default_rng(seed), seed
        self.report: dict[str, Any] = {"data": digits.name, "seed": seed}
        self.timings: dict[str, float] = {}
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Print a line and keep it for the report."""
        self.lines.append(text)
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print a heading and keep it for the report."""
        self.lines += ["", text, "-" * len(text)]
        self.console.rule(text, align="left")

    def run(self, out: Path) -> bool:
        """All steps; True where every check held."""
        begin = time.perf_counter()
        images, held_out = len(self.digits.train_labels), len(self.digits.test_labels)
        self.say(f"{self.digits.name}: {images} images to train with, {held_out} held out; seed {self.seed}")
        network = self.train_classifier()
        fused = network.fuse()
        self.verify(network, fused)
        self.identity()
        vae = self.train_vae()
        self.gradients()
        self.timings["whole run, seconds"] = time.perf_counter() - begin
        self.write(out, network, fused, vae)
        checks = self.report["checks"]
        self.say(f"\nEvery check held. See {out}/report.txt and the pictures beside it." if all(checks.values()) else
                 "\nFAILED: " + ", ".join(name for name, held in checks.items() if not held))
        return all(checks.values())

    def check(self, name: str, held: Any) -> None:
        """Record a check."""
        self.report.setdefault("checks", {})[name] = bool(held)

    def fit(self, what: str, *args: Any, **kwargs: Any) -> list[float]:
        """Train with a progress bar; returns the loss curve, which has points enough even where one epoch is all."""
        losses: list[float] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
                   TimeElapsedColumn())
        begin = time.perf_counter()
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(what, total=None, loss=float("nan"))

            def progress(done: int, total: int, loss: float) -> None:
                losses.append(loss)
                bar.update(task, completed=done, total=total, loss=loss)

            fit(*args, **kwargs, batch=self.batch, rng=self.rng, progress=progress)
        self.timings[f"{what}, seconds"] = time.perf_counter() - begin
        return [float(np.mean(part)) for part in np.array_split(losses, min(CURVE, len(losses)))]

    def train_classifier(self) -> RepVGG:
        """Step (a)."""
        self.heading("Structural: train three branches")
        images, labels = self.digits.train_images, self.digits.train_labels
        network = RepVGG(images.shape[1], rng=self.rng)
        history = self.fit("RepVGG classifier", network, classifier_loss(network, images, labels), Adam(network, RATE), len(labels),
                           epochs=self.epochs)
        accuracy = float((predict(network, self.digits.test_images).argmax(1) == self.digits.test_labels).mean())
        self.report |= {"classifier loss": history, "test accuracy": accuracy}
        self.say(f"Blocks of 3x3 + 1x1 + identity, each with batch norm. Loss {history[0]:.4f} -> {history[-1]:.4f}, "
                 f"accuracy on the held-out images {100 * accuracy:.2f} %.")
        return network

    def verify(self, network: RepVGG, fused: Sequential) -> None:
        """Steps (b) and (c)."""
        self.heading("Structural: deploy one convolution")
        images = self.digits.test_images
        many, one = predict(network, images), predict(fused, images)
        difference = float(np.abs(many - one).max())
        scaled = difference / float(np.abs(many).max())
        same = bool((many.argmax(1) == one.argmax(1)).all())
        counts = count_parameters(network), count_parameters(fused)
        self.check("fused and multi-branch predictions identical", same)
        self.report["fusion"] = {"largest absolute difference": difference, "largest scaled difference": scaled, "images": len(images),
                                 "parameters multi-branch": counts[0], "parameters fused": counts[1]}
        wide, bound = self.verify_in_float64(network)
        speeds = self.race(network, fused, images[:TIMED_IMAGES])
        self.say(f"{len(images)} held-out images: largest difference of the logits {difference:.2e}, {scaled:.2e} of the largest logit; "
                 f"predictions {'identical' if same else 'DIFFER'}.")
        self.say(f"The same in float64, where rounding hides nothing: {wide:.2e}; "
                 f"two correct float64 evaluations cannot differ by more than {bound:.2e}.")
        self.say(f"Parameters {counts[0]:,} -> {counts[1]:,}. "
                 f"Speed {speeds[0]:,.0f} -> {speeds[1]:,.0f} images/s ({speeds[1] / speeds[0]:.1f}x).")

    def verify_in_float64(self, network: RepVGG) -> tuple[float, float]:
        """Largest difference and largest bound in float64, on some held-out images; a wrong formula is far outside."""
        network = network.astype(np.float64)
        images = self.digits.test_images[:BOUNDED_IMAGES].astype(np.float64)
        difference, bound = np.abs(network(images) - network.fuse()(images)), fusion_bound(network, images)
        self.check("fused and multi-branch agree within the bound of rounding errors", (difference <= bound).all())
        found = {"images": len(images), "largest absolute difference": float(difference.max()), "largest bound": float(bound.max())}
        self.report["fusion"]["in float64"] = found
        return float(difference.max()), float(bound.max())

    def race(self, network: RepVGG, fused: Sequential, images: Any) -> tuple[float, float]:
        """Images per second of both, medians of alternating runs."""
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(TIMED):
            for model, taken in zip((network, fused), times, strict=True):
                begin = time.perf_counter()
                model(images)
                taken.append(time.perf_counter() - begin)
        many, one = (len(images) / float(np.median(taken)) for taken in times)
        self.timings |= {"multi-branch, images/s": many, "fused, images/s": one}
        return many, one

    def identity(self) -> None:
        """Step (d)."""
        self.heading("Structural: which kernel is the identity?")
        x = self.digits.test_images[:1]
        centre = identity_kernel(x.shape[1]).astype(x.dtype)
        right, wrong = (float(np.abs(ops.conv2d(x, kernel, padding=1) - x).max()) for kernel in (centre, np.ones_like(centre)))
        self.check("centre kernel is the identity", right == 0)
        self.check("all-ones kernel is not the identity", wrong > 0)
        self.report["identity kernel"] = {"error of one at the centre": right, "error of nine ones": wrong}
        self.say(f"One at the centre, zeros around: largest |conv(x) - x| = {right:g}. Nine ones: {wrong:g}, a box sum.")

    def train_vae(self) -> VAE:
        """Step (e)."""
        self.heading("Generative: train a VAE through z = mu + sigma*eps")
        images = self.digits.train_images
        vae = VAE(images.shape[1:], rng=self.rng)
        eps = vae.noise(len(self.digits.test_images), self.rng)
        before = float(vae.elbo(self.digits.test_images, eps).mean())
        history = self.fit("VAE", vae, vae_loss(vae, images, self.rng), Adam(vae, RATE), len(images), epochs=self.vae_epochs)
        after = float(vae.elbo(self.digits.test_images, eps).mean())
        self.check("ELBO improved", after > before)
        self.report |= {"vae loss": history, "held-out ELBO": {"before": before, "after": after}}
        self.say(f"ELBO of the held-out images {before:.2f} -> {after:.2f} nats per image (higher is better).")
        return vae

    def gradients(self) -> None:
        """Step (f)."""
        self.heading("Generative: do gradients reach mu and sigma?")
        mu, sigma = Tensor(np.array([0.5, -1.0]), "mu"), Tensor(np.array([1.0, 2.0]), "sigma")
        eps = self.rng.standard_normal(2)
        z = ops.normal_rsample(mu, sigma, eps)
        to_mu, to_sigma = grad(ops.sum(z), [mu, sigma])
        self.check("dz/dmu = 1 and dz/dsigma = eps", (to_mu == 1).all() and (to_sigma == eps).all())
        self.say(f"z = mu + sigma*eps: dz/dmu = {to_mu}, dz/dsigma = {to_sigma}, and eps = {eps}.")
        plain = Tensor(self.rng.normal(mu.value, sigma.value), "z")
        try:
            grad(ops.sum(plain), [mu, sigma])
            message = ""
        except UnusedInputError as error:
            message = str(error)
        self.check("a plain sample has no gradient", message)
        self.report["gradients"] = {"dz/dmu": to_mu.tolist(), "dz/dsigma": to_sigma.tolist(), "eps": eps.tolist(), "plain sample": message}
        self.say(f"z drawn directly from N(mu, sigma^2): {message or 'NO ERROR'}.")

    def write(self, out: Path, network: RepVGG, fused: Sequential, vae: VAE) -> None:
        """Step (g)."""
        shown = self.digits.test_images[:SHOWN]
        block = list(network.blocks)[-1]
        names = ("3x3 + BN", "1x1 + BN", "identity + BN")
        kernels = [(name, kernel) for name, (kernel, _) in zip(names, block.branch_kernels(), strict=False)]
        curves = {"RepVGG classifier": self.report["classifier loss"], "VAE, negative ELBO": self.report["vae loss"]}
        epochs = dict(zip(curves, (self.epochs, self.vae_epochs), strict=True))
        write_arrays(out / "fused.npz", fused.state_dict())
        write_figure(out / "loss_curves.png", self.plots.loss_curves(curves, epochs))
        write_figure(out / "reconstructions.png", self.plots.reconstructions(shown, vae(shown)))
        write_figure(out / "samples.png", self.plots.images(vae.sample(SAMPLES, self.rng), title="samples decoded from N(0, 1)"))
        write_figure(out / "branch_kernels.png", self.plots.branch_kernels(kernels))
        write_json(out / "report.json", self.report | {"timings": self.timings})
        write(out / "report.txt", "\n".join(self.lines).encode() + b"\n")
