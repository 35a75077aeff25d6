"""The figures of the tour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npreparam.plots._style import Array, Figure, heat, new_figure


def loss_curves(curves: Mapping[str, Sequence[float]], epochs: Mapping[str, int] | None = None) -> Figure:
    """One panel for each named history of losses, evenly spread over its `epochs`; by default one loss for each epoch.

    >>> loss_curves({"loss": [2.0, 1.0]}).axes[0].get_title()
    'loss'
    """
    figure = new_figure(5 * len(curves), 3.4)
    for axes, (name, values) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        last = len(values) if epochs is None else epochs[name]
        axes.plot(np.arange(1, len(values) + 1) * last / len(values), values, marker=".")
        axes.set(title=name, xlabel="epoch", ylabel="loss (nats)")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
    return figure


def images(pictures: Array, columns: int = 10, title: str = "", size: float = 0.7) -> Figure:
    """A grid of gray images (N, 1, H, W) in [0, 1], each `size` inches wide.

    >>> len(images(np.zeros((3, 1, 8, 8)), columns=2).axes)
    4
    """
    rows = -(-len(pictures) // columns)
    figure = new_figure(size * columns, size * rows + 0.4)
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.ravel()):
        axes.axis("off")
        if i < len(pictures):
            axes.imshow(pictures[i, 0], cmap="gray", vmin=0, vmax=1)
    return figure


def reconstructions(originals: Array, decoded: Array) -> Figure:
    """Originals in rows, each over its reconstruction.

    >>> len(reconstructions(np.zeros((2, 1, 8, 8)), np.zeros((2, 1, 8, 8))).axes)
    4
    """
    columns = len(originals)
    return images(np.concatenate([originals, decoded]), columns, "held-out images and their reconstructions")


def branch_kernels(branches: Sequence[tuple[str, Array]], channel: int = 0) -> Figure:
    """The 3x3 kernels of the branches and their sum, for one output channel and the input channel of the same number (within its group).

    >>> len(branch_kernels([("3x3", np.ones((1, 1, 3, 3))), ("1x1", np.ones((1, 1, 3, 3)))]).axes)
    3
    """
    named = [*branches, ("sum = fused kernel", np.sum([kernel for _, kernel in branches], axis=0))]
    planes = [(name, kernel[channel, channel % kernel.shape[1]]) for name, kernel in named]
    limit = max(float(np.abs(plane).max()) for _, plane in planes)
    columns = 2 if len(planes) == 4 else len(planes)  # a square can be read on a phone too
    rows = -(-len(planes) // columns)
    figure = new_figure(2.6 * columns, 2.8 * rows)
    for axes, (name, plane) in zip(figure.subplots(rows, columns, squeeze=False).ravel(), planes, strict=True):
        heat(axes, plane, limit)
        axes.set_title(name)
    return figure
