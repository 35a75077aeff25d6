"""A training run that can stop after any step and go on later with the same bits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError, StateError
from npreparam._shapes import as_int
from npreparam.kernels._threads import awake
from npreparam.models.evaluate import evaluate
from npreparam.models.training import train_step, vae_loss
from npreparam.models.vae import VAE
from npreparam.nn import Adagrad, Adam

Array = NDArray[Any]
FORMAT = "npreparam training run 2"
OPTIMIZERS = {"adam": Adam, "adagrad": Adagrad}


class Session:
    """Model, optimizer ("adam" or "adagrad"), generator, and how far they came; `state` is all of it as arrays, `restore` takes it back.

    `about` says what is trained on which data with which settings: a state of another `about` is refused.

    >>> images = np.random.default_rng(0).random((8, 1, 2, 2), np.float32)
    >>> model = VAE((1, 2, 2), hidden=4, latent=2, rng=np.random.default_rng(0))
    >>> session = Session(model, images, images, rate=1e-3, batch=4, seed=0, about={"data": "noise"})
    >>> session.run(2, lambda session: True, lambda session: None)
    >>> session.epoch, [row["epoch"] for row in session.history]
    (2, [1, 2])
    """

    def __init__(self, model: VAE, train: Array, test: Array, *, rate: float, batch: int, seed: int, about: Mapping[str, Any],
                 optimizer: str = "adam") -> None:
        self.model, self.train, self.test, self.seed = model, train, test, seed
        self.batch = as_int(batch, "batch", 1)
        if not 0 < self.batch <= len(train):
            raise ArgumentError(f"`batch` (={batch}) must not be larger than the number of images (={len(train)})")
        self.steps = len(train) // self.batch
        if optimizer not in OPTIMIZERS:
            raise ArgumentError(f"`optimizer` (={optimizer!r}) must be one of {', '.join(OPTIMIZERS)}")
        self.optimizer = OPTIMIZERS[optimizer](model, rate)
        self.rng = np.random.default_rng([seed, 1])
        self.loss = vae_loss(model, train, self.rng)
        self.order = np.empty(0, np.int64)
        self.epoch = 0
        self.losses: list[float] = []  # of this epoch's steps
        self.history: list[dict[str, float]] = []  # one row for each epoch
        self.about = {**about, "optimizer": optimizer, "rate": rate, "batch": self.batch, "seed": seed, "images": fingerprint(train),
                      "held out": fingerprint(test)}

    def run(self, epochs: int, after_step: Callable[[Session], bool], after_epoch: Callable[[Session], None]) -> None:
        """Train until `epochs` epochs are done, or `after_step`, called when a step is complete, says False."""
        with awake():
            while self.epoch < epochs:
                if len(self.losses) < self.steps:  # else it was stopped between an epoch's last step and its evaluation
                    self.step()
                    if not after_step(self):
                        return
                if len(self.losses) == self.steps:
                    self.end_epoch()
                    after_epoch(self)

    def step(self) -> None:
        """One step."""
        if not self.losses:
            self.order = self.rng.permutation(len(self.train))
        i = len(self.losses)
        loss = train_step(self.model, self.loss, self.optimizer, self.order[i * self.batch : (i + 1) * self.batch])
        if not np.isfinite(loss):
            raise ArgumentError(f"the loss is {loss} in epoch {self.epoch + 1}, step {i + 1}; a smaller `rate` may help")
        self.losses.append(loss)

    def end_epoch(self) -> None:
        """Evaluate on the held-out images, with noise that depends on seed and epoch alone."""
        with np.errstate(all="ignore"):
            found = evaluate(self.model, self.test, np.random.default_rng([self.seed, 2, self.epoch]))
            finite = bool(np.isfinite(found.loss).all())
        if not finite:
            raise ArgumentError(f"the loss of held-out images is not finite after epoch {self.epoch + 1}; a smaller `rate` may help")
        self.epoch += 1
        self.history.append({"epoch": self.epoch, "train loss": float(np.mean(self.losses)), "test loss": float(found.loss.mean()),
                             "test reconstruction": float(-found.log_likelihood.mean()), "test kl": float(found.kl.sum(1).mean()),
                             "active units": int(found.active.sum())})
        self.losses = []

    def state(self) -> dict[str, Array]:
        """Everything that the next step depends on, and the history."""
        told = {"format": FORMAT, "about": self.about, "epoch": self.epoch, "steps": self.optimizer.steps, "history": self.history,
                "rng": self.rng.bit_generator.state}
        arrays = {"told": np.array(json.dumps(told)), "order": self.order.copy(), "losses": np.array(self.losses, np.float64)}
        arrays |= {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for name, moments in self.optimizer.moments.items():
            arrays |= {f"moment {i}/{name}": moment.copy() for i, moment in enumerate(moments)}
        return arrays

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on where `state` was taken.

        Raises StateError that says what differs, before anything has changed.
        """
        told = _told(state)
        if told["about"] != (mine := json.loads(json.dumps(self.about))):
            differing = [f"{name} is {told['about'].get(name)!r} there and {mine.get(name)!r} here"
                         for name in {**told["about"], **mine} if told["about"].get(name) != mine.get(name)]
            raise StateError(f"it is of another run: {'; '.join(differing)}")
        model, *moments = ({name.partition("/")[2]: state[name] for name in state if name.startswith(prefix)}
                           for prefix in ("model/", *(f"moment {i}/" for i in range(self.optimizer.kept))))
        problems = [*self._misplaced(told, state), *self._strange_moments(moments, told["steps"])]
        if problems:
            raise StateError(f"it is damaged: {'; '.join(problems)}")
        self.model.load_state_dict(model)  # changes nothing unless all fits
        self.optimizer.moments = {name: tuple(kept[name].copy() for kept in moments) for name in moments[0]}
        self.optimizer.steps, self.epoch, self.history = told["steps"], told["epoch"], told["history"]
        self.rng.bit_generator.state = told["rng"]
        self.order, self.losses = state["order"].astype(np.int64), state["losses"].tolist()

    def _misplaced(self, told: Mapping[str, Any], state: Mapping[str, Array]) -> Iterator[str]:
        """What is wrong with where the run is said to be."""
        order, losses = state["order"], state["losses"]
        if not (order.dtype == np.int64 and order.ndim == 1 and (not order.size or np.array_equal(np.sort(order), np.arange(len(self.train))))):
            yield f"`order` is no order of {len(self.train)} images"
        if not (losses.dtype == np.float64 and losses.ndim == 1 and losses.size <= self.steps and np.isfinite(losses).all()):
            yield f"`losses` are no losses of at most {self.steps} steps"
        elif losses.size and not order.size:
            yield "`order` is empty within an epoch"
        if told["steps"] != told["epoch"] * self.steps + losses.size or len(told["history"]) != told["epoch"]:
            yield "epochs, steps and history do not belong together"
        try:
            np.random.default_rng(0).bit_generator.state = told["rng"]
        except (TypeError, ValueError, KeyError, OverflowError):
            yield "`rng` is no state of a generator"

    def _strange_moments(self, kept: Sequence[Mapping[str, Array]], steps: int) -> Iterator[str]:
        """What is wrong with what the optimizer keeps."""
        parameters = {name: tensor.value for name, tensor in self.model.parameters().items()} if steps else {}
        for number, moments in enumerate(kept):
            yield from (f"moment {number}/{name} is missing" for name in parameters if name not in moments)
            yield from (f"moment {number}/{name} is none of this model's" for name in moments if name not in parameters)
            yield from (f"moment {number}/{name} is {moments[name].dtype} {moments[name].shape}, not {p.dtype} {p.shape}"
                        for name, p in parameters.items() if name in moments and (moments[name].dtype, moments[name].shape) != (p.dtype, p.shape))


TOLD = {"format": str, "about": dict, "epoch": int, "steps": int, "history": list, "rng": dict}


def _told(state: Mapping[str, Array]) -> dict[str, Any]:
    try:
        told = json.loads(str(state["told"]))
        if all(type(told[name]) is kind for name, kind in TOLD.items()) and told["format"] == FORMAT and {"order", "losses"} <= set(state):
            return dict(told)
    except (KeyError, ValueError, TypeError, RecursionError):
        pass
    raise StateError("it holds no training run")


def fingerprint(images: Array) -> str:
    """Shape and SHA-256 (its first 16 digits) of images."""
    return f"{'x'.join(map(str, images.shape))} {hashlib.sha256(np.ascontiguousarray(images)).hexdigest()[:16]}"
