"""Pictures of the internals: what is drawn, not how it looks."""

import numpy as np
import pytest

from npreparam import ArgumentError, ShapeError, ops, plots
from npreparam.tape import Tensor


def texts(figure, axes=0):
    return [text.get_text() for text in figure.axes[axes].texts if text.get_text()]


def test_kernel_maps_write_every_number():
    figure = plots.kernel_maps({"a": np.array([[1.0, -2.0]]), "b": np.zeros((1, 1))}, form="{:.1f}")
    assert texts(figure) == ["1.0", "-2.0"]
    assert texts(figure, 1) == ["0.0"]
    assert len({axes.images[0].norm.vmax for axes in figure.axes}) == 1  # one scale for all


def test_kernel_maps_refuse_more_axes():
    with pytest.raises(ShapeError, match="choose an output and an input channel"):
        plots.kernel_maps({"w": np.zeros((1, 1, 3, 3))})


def test_tape_graph_shows_each_node_once_and_below_its_parents():
    x = Tensor(np.ones(2), "x")
    y = ops.square(x)
    figure = plots.tape_graph(ops.add(y, ops.mul(y, x)))
    assert sorted(text.split("\n")[0] for text in texts(figure)) == ["add", "mul", "square", "x"]
    height = {text.get_text().split("\n")[0]: text.get_position()[1] for text in figure.axes[0].texts if text.get_text()}
    assert height["x"] > height["square"] > height["mul"] > height["add"]


def test_tape_graph_of_a_long_chain_does_not_recurse():
    x = Tensor(np.ones(()), "x")
    y = x
    for _ in range(60):
        y = ops.neg(y)
    assert len(texts(plots.tape_graph(y))) == 61


def test_tape_graph_wants_a_tensor():
    with pytest.raises(ArgumentError, match="must be a Tensor"):
        plots.tape_graph(np.ones(2))


@pytest.mark.parametrize(("pixel", "first"), [(0, 0), (4, 4), (5, 7), (24, 32)])
def test_offset_table_marks_what_a_pixel_reads(pixel, first):
    figure = plots.offset_table(5, 3, padding=1, pixel=pixel)
    marked = {i for i, patch in enumerate(figure.axes[0].patches) if patch.get_facecolor()[:3] == pytest.approx((0xE6 / 255, 0x9F / 255, 0))}
    assert marked == {first + row * 7 + column for row in range(3) for column in range(3)}


def test_offset_table_agrees_with_im2col():
    columns = ops.im2col(np.arange(20.0).reshape(1, 1, 4, 5), (2, 3), dilation=(2, 1))[0]
    figure = plots.offset_table((4, 5), (2, 3), dilation=(2, 1))
    offsets = [int(number) for number in figure.axes[0].get_title().removeprefix("offsets ").partition(" +")[0].split(",")]
    assert offsets == columns[:, 0].astype(int).tolist()


def test_offset_table_refuses_a_pixel_outside():
    with pytest.raises(ArgumentError, match=r"`pixel` \(=9\) must be one of the 9"):
        plots.offset_table(5, 3, pixel=9)


@pytest.mark.parametrize("arguments", [{"peak": 0, "bandwidth": 1}, {"peak": 1, "bandwidth": float("nan")}])
def test_roofline_wants_a_roof(arguments):
    with pytest.raises(ArgumentError, match="must be positive"):
        plots.roofline({"a": (1.0, 1.0)}, **arguments)


def test_roofline_roof_is_the_minimum():
    line = plots.roofline({"a": (1.0, 1.0)}, peak=100, bandwidth=10).axes[0].lines[0]
    intensity, speed = line.get_data()
    assert np.array_equal(speed, np.minimum(100, 10 * intensity))


def test_histograms_and_bars_and_error_maps():
    figure = plots.histograms({"narrow": np.zeros(9), "wide": np.arange(9.0)}, truth=1.0)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["narrow: mean 0, variance 0", "wide: mean 4, variance 6.667"]
    assert texts(plots.bars({"a": 1.0, "b": 2.5}, "ms")) == ["1", "2.5"]
    assert plots.error_maps({"e": np.array([[0.0, 3.0]])}).axes[0].get_title() == "e\nlargest 3"


def test_a_scalar_is_called_so():
    assert sorted(texts(plots.tape_graph(ops.square(Tensor(np.array(1.0), "x"))))) == ["square\nscalar", "x\nscalar"]


def test_a_roofline_has_plain_numbers():
    figure = plots.roofline({"conv": (20.0, 90.0)}, peak=116, bandwidth=20)
    figure.draw_without_rendering()
    labels = [label.get_text() for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis) for label in axis.get_ticklabels(which="both")]
    assert {"10", "20", "50"} <= set(labels)
    assert not any("$" in label for label in labels)
