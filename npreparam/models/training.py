"""The training loop: minibatches from an explicit generator, one loss function, a history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam._shapes import as_int
from npreparam.kernels._threads import awake
from npreparam.nn import SGD, Adagrad, Adam, Module
from npreparam.tape import Tensor, grad

Array = NDArray[Any]
LossFunction = Callable[[Array], Tensor]  # indices of a minibatch -> scalar loss on the tape
Optimizer = SGD | Adam | Adagrad
Progress = Callable[[int, int, float], None]  # steps done, steps in all, latest loss


def fit(module: Module, loss: LossFunction, optimizer: Optimizer, samples: int, *, epochs: int, batch: int, rng: np.random.Generator,
        progress: Progress | None = None) -> list[float]:
    """Minimize `loss` over shuffled minibatches; returns the mean loss of each epoch.

    The last, incomplete minibatch of an epoch is left out, so that every step normalizes over as many images.

    >>> from npreparam.nn import Linear
    >>> x, labels = np.eye(2, dtype=np.float32).repeat(8, 0), np.arange(2).repeat(8)
    >>> model = Linear(2, 2, rng=np.random.default_rng(0))
    >>> history = fit(model, classifier_loss(model, x, labels), SGD(model, 1.0), 16, epochs=5, batch=8, rng=np.random.default_rng(0))
    >>> history[-1] < history[0]
    True
    """
    epochs, batch = as_int(epochs, "epochs", 1), as_int(batch, "batch", 1)
    steps = samples // batch
    if not steps:
        raise ArgumentError(f"`batch` (={batch}) must not be larger than the number of samples (={samples})")
    history = []
    with awake():
        for epoch in range(epochs):
            order = rng.permutation(samples)
            losses = []
            for i in range(steps):
                losses.append(train_step(module, loss, optimizer, order[i * batch : (i + 1) * batch]))
                if progress is not None:
                    progress(epoch * steps + i + 1, epochs * steps, losses[-1])
            history.append(float(np.mean(losses)))
    return history


def train_step(module: Module, loss: LossFunction, optimizer: Optimizer, chosen: Array) -> float:
    """One step of the optimizer on the loss of the chosen images; returns the loss before it."""
    value = loss(chosen)
    optimizer.step(grad(value, module.parameters()))
    return float(value.value)


def classifier_loss(module: Module, images: Array, labels: Array) -> LossFunction:
    """Mean softmax cross-entropy of a minibatch.

    >>> from npreparam.nn import Linear
    >>> model = Linear(2, 4, rng=np.random.default_rng(0))
    >>> loss = classifier_loss(model, np.zeros((3, 2), np.float32), np.array([0, 1, 2]))
    >>> round(float(loss(np.array([0, 2])).value), 4)  # log 4: all logits are 0
    1.3863
    """
    return lambda chosen: ops.mean(ops.cross_entropy(module(images[chosen], training=True), labels[chosen]))


def vae_loss(module: Any, images: Array, rng: np.random.Generator) -> LossFunction:
    """Negative mean objective (of a VAE, the ELBO) of a minibatch, in nats per image, with fresh noise every time.

    >>> from npreparam.models import VAE
    >>> model = VAE((1, 2, 2), hidden=4, latent=2, rng=np.random.default_rng(0))
    >>> vae_loss(model, np.full((3, 1, 2, 2), 0.5, np.float32), np.random.default_rng(1))(np.array([0, 2])).shape
    ()
    """
    return lambda chosen: ops.neg(ops.mean(module.objective(images[chosen], module.noise(len(chosen), rng), training=True)))


def predict(module: Module, images: Array, batch: int = 256) -> Array:
    """The module's output for all images, a few at a time; the same bits whatever `batch` is.

    >>> from npreparam.nn import ReLU
    >>> predict(ReLU(), np.array([[-1.0], [2.0], [3.0]]), batch=2)
    array([[0.],
           [2.],
           [3.]])
    """
    batch = as_int(batch, "batch", 1)
    return np.concatenate([module(images[i : i + batch]) for i in range(0, max(1, len(images)), batch)])
