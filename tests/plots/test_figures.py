"""The figures show the numbers they were given, and leave pyplot alone."""

import importlib
import io
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from npreparam import plots


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_loss_curves_have_one_panel_for_each_history():
    figure = plots.loss_curves({"a": [3.0, 2.0, 1.0], "b": [5.0]})
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert figure.axes[1].lines[0].get_xydata().tolist() == [[1, 5]]
    assert all(tick == round(tick) for axes in figure.axes for tick in axes.get_xticks())
    finer = plots.loss_curves({"a": [4.0, 3.0, 2.0, 1.0]}, {"a": 2})
    assert finer.axes[0].lines[0].get_xydata().tolist() == [[0.5, 4], [1, 3], [1.5, 2], [2, 1]]
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(("count", "columns", "cells"), [(1, 10, 10), (10, 10, 10), (11, 10, 20), (4, 2, 4)])
def test_a_grid_shows_every_image_once(count, columns, cells):
    pictures = np.random.default_rng(0).random((count, 1, 3, 2))
    figure = plots.images(pictures, columns)
    assert len(figure.axes) == cells
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert (np.array(shown) == pictures[:, 0]).all()


def test_reconstructions_stand_under_their_originals():
    originals, decoded = np.zeros((3, 1, 2, 2)), np.ones((3, 1, 2, 2))
    figure = plots.reconstructions(originals, decoded)
    assert [axes.images[0].get_array().max() for axes in figure.axes] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("channel", "inputs", "plane"), [(0, 4, 0), (3, 4, 3), (3, 2, 1)])
def test_branch_kernels_show_the_branches_and_their_sum(channel, inputs, plane):
    kernels = np.random.default_rng(0).standard_normal((2, 4, inputs, 3, 3))
    figure = plots.branch_kernels([("one", kernels[0]), ("two", kernels[1])], channel)
    assert [axes.get_title() for axes in figure.axes] == ["one", "two", "sum = fused kernel"]
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert (np.array(shown) == [*kernels[:, channel, plane], kernels.sum(0)[channel, plane]]).all()
    assert [text.get_text() for text in figure.axes[2].texts] == [f"{value:.2f}" for value in shown[2].ravel()]
    assert len({(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in figure.axes}) == 1


def test_pyplot_is_not_loaded():
    code = "import sys, npreparam.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for name in ("figures", "_style"):
        monkeypatch.delitem(sys.modules, f"npreparam.plots.{name}")
    with pytest.raises(ImportError) as caught:
        importlib.import_module("npreparam.plots.figures")
    assert str(caught.value) == "pictures need matplotlib: pip install 'npreparam[plots]'"
