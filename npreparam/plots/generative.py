"""Pictures of generative models and of gradient estimators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npreparam.plots._style import COLOURS, Array, Figure, new_figure

BINS = 120
TAILS = 0.5  # per cent of the widest estimator left out at each side


def tiles(pictures: Array, title: str = "") -> Figure:
    """Gray images (rows, columns, channels, H, W) in [0, 1] side by side as one picture; the first channel is shown.

    >>> tiles(np.zeros((2, 3, 1, 8, 8))).axes[0].images[0].get_array().shape
    (16, 24)
    """
    rows, columns, _, height, width = pictures.shape
    figure = new_figure(0.55 * columns, 0.55 * rows * height / width + 0.4)
    axes = figure.subplots()
    axes.imshow(pictures[:, :, 0].transpose(0, 2, 1, 3).reshape(rows * height, columns * width), cmap="gray", vmin=0, vmax=1)
    axes.axis("off")
    axes.set_title(title, fontsize=9)
    return figure


def gradient_histograms(found: Mapping[str, Mapping[str, Array]], variances: Mapping[str, Mapping[str, float]], truth: Mapping[str, float]) -> Figure:
    """A panel for each parameter: histograms of every estimator's gradients, their exact variances, and the true gradient.

    >>> g = {"pathwise": {"mu": np.arange(4.0)}}
    >>> gradient_histograms(g, {"pathwise": {"mu": 1.25}}, {"mu": 1.5}).axes[0].get_title()
    'd/dmu'
    """
    figure = new_figure(6.2 * len(truth), 3.8)
    for axes, (parameter, value) in zip(figure.subplots(1, len(truth), squeeze=False)[0], truth.items(), strict=True):
        ends = np.percentile(np.concatenate([gradients[parameter] for gradients in found.values()]), [TAILS, 100 - TAILS])
        bins = np.linspace(*ends, BINS)
        for colour, (name, gradients) in zip(COLOURS, found.items(), strict=False):
            axes.hist(gradients[parameter], bins, density=True, histtype="step", color=colour,
                      label=f"{name}: variance {variances[name][parameter]:.4g}")
        axes.axvline(value, color="black", linestyle=":", label=f"true gradient {value:g}")
        axes.set(title=f"d/d{parameter}", xlabel="gradient of one sample", ylabel="density", yscale="log")
        axes.legend(fontsize=7)
    return figure
