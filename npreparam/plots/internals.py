"""Pictures of the internals: kernels, where a fusion errs, the tape's graph, offset tables, a roofline, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import Padding, Size2, Window
from npreparam.plots._style import COLOURS, SEQUENTIAL, Array, Figure, heat, new_figure
from npreparam.tape import Tensor

BINS = 80


def kernel_maps(kernels: Mapping[str, Array], form: str = "{:.2f}") -> Figure:
    """Matrices side by side on one scale of colours, with their numbers; each has a name.

    Raises ShapeError for anything but matrices.

    >>> kernel_maps({"identity": np.diag([0, 1, 0])}).axes[0].get_title()
    'identity'
    """
    planes = {name: np.asarray(kernel, np.float64) for name, kernel in kernels.items()}
    for name, plane in planes.items():
        if plane.ndim != 2:
            raise ShapeError(f"`kernels` {name!r} has shape {plane.shape}; a heat map shows one matrix: choose an output and an input channel")
    limit = max((float(np.abs(plane).max()) for plane in planes.values()), default=0.0) or 1.0
    figure = new_figure(2.4 * len(planes) + 0.3, 2.9)
    for axes, (name, plane) in zip(figure.subplots(1, len(planes), squeeze=False)[0], planes.items(), strict=True):
        heat(axes, plane, limit, form)
        axes.set_title(name, fontsize=10)
    return figure


def error_maps(errors: Mapping[str, Array], unit: str = "|difference|") -> Figure:
    """Non-negative matrices, such as |fused - multi-branch| of one channel, each on its own scale of colours.

    >>> len(error_maps({"a": np.eye(3), "b": np.eye(3)}).axes)    # two maps, two scales
    4
    """
    figure = new_figure(3.6 * len(errors), 3.1)
    for axes, (name, error) in zip(figure.subplots(1, len(errors), squeeze=False)[0], errors.items(), strict=True):
        image = axes.imshow(error, cmap=SEQUENTIAL, vmin=0)
        axes.set(title=f"{name}\nlargest {np.max(error):.2g}", xticks=[], yticks=[])
        figure.colorbar(image, ax=axes, label=unit, shrink=0.8)
    return figure


def histograms(samples: Mapping[str, Array], truth: float | None = None, quantity: str = "gradient") -> Figure:
    """One histogram over another on a common axis, cut at the samples' outer thousandths; mean and variance are of all samples.

    >>> histograms({"a": np.arange(9.0)}, truth=4.0).axes[0].get_title(loc="left")
    'a: mean 4, variance 6.667'
    """
    low, high = np.quantile(np.concatenate([np.ravel(values) for values in samples.values()]), [0.001, 0.999])
    figure = new_figure(6.4, 1.5 * len(samples) + 0.5)
    panels = figure.subplots(len(samples), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, values), colour in zip(panels, samples.items(), COLOURS * len(samples), strict=False):
        axes.hist(np.ravel(values), bins=BINS, range=(low, high), color=colour)
        axes.set_title(f"{name}: mean {np.mean(values):.3g}, variance {np.var(values):.4g}", loc="left", fontsize=9)
        axes.set(yticks=[])
        if truth is not None:
            axes.axvline(truth, color="black", linestyle="--", linewidth=1)
    panels[-1].set_xlabel(quantity if truth is None else f"{quantity} (dashed: the truth, {truth:.3g})")
    return figure


def tape_graph(output: Tensor) -> Figure:
    """The graph that `grad` walks: primitives as boxes, leaves as ellipses, arrows the way values flow.

    Raises ArgumentError for an output that is no Tensor.

    >>> x = Tensor(np.ones(2), name="x")
    >>> [text.get_text() for text in tape_graph(x * x).axes[0].texts if text.get_text()]
    ['mul\\n(2,)', 'x\\n(2,)']
    """
    if not isinstance(output, Tensor):
        raise ArgumentError(f"`output` is a {type(output).__name__}, but must be a Tensor")
    depth, edges, labels = _layers(output)
    ranks: dict[int, list[int]] = {}
    for key in sorted(depth):
        ranks.setdefault(depth[key], []).append(key)
    height = max(depth.values())
    place = {key: (i - (len(row) - 1) / 2, height - rank) for rank, row in ranks.items() for i, key in enumerate(row)}
    width = max(len(row) for row in ranks.values())
    figure = new_figure(1.7 * width + 0.6, 0.95 * (height + 1) + 0.3)
    axes = figure.subplots()
    for start, end in edges:
        axes.annotate("", place[end], place[start], arrowprops={"arrowstyle": "-|>", "color": "0.45", "shrinkA": 17, "shrinkB": 17})
    for key, (label, leaf) in labels.items():
        shape = {"boxstyle": "ellipse,pad=0.3", "facecolor": "#CCE3F0"} if leaf else {"boxstyle": "round,pad=0.4", "facecolor": "#FAE6C0"}
        axes.text(*place[key], label, ha="center", va="center", fontsize=9, bbox=shape | {"edgecolor": "0.3"})
    axes.set(xlim=(-width / 2 - 0.1, width / 2 + 0.1), ylim=(-0.5, height + 0.5))
    axes.axis("off")
    return figure


def _layers(output: Tensor) -> tuple[dict[int, int], list[tuple[int, int]], dict[int, tuple[str, bool]]]:
    """For each node, by its creation id: its distance from the furthest leaf; then the edges, and each node's label and whether it is a leaf."""
    depth: dict[int, int] = {}
    edges: list[tuple[int, int]] = []
    labels: dict[int, tuple[str, bool]] = {}
    pending, seen = [output], {}
    while pending:
        tensor = pending.pop()
        node = tensor.node
        key = tensor.id if node is None else node.id
        if key in seen:
            continue
        seen[key] = tensor
        labels[key] = (f"{(tensor.name or 'leaf') if node is None else node.primitive.name}\n{tensor.shape or 'scalar'}", node is None)
        for parent in () if node is None else node.parents:
            edges.append((parent.id if parent.node is None else parent.node.id, key))
            pending.append(parent)
    for key in sorted(seen):  # ids grow along every edge
        depth[key] = max((depth[start] + 1 for start, end in edges if end == key), default=0)
    return depth, edges, labels


def offset_table(size: Size2, kernel: Size2, padding: Padding = 0, dilation: Size2 = 1, pixel: int = 0) -> Figure:
    """Implicit im2col of one channel at unit stride: the padded image with every element's flat index, and where output `pixel` finds its taps.

    Element of tap (kh, kw) for output pixel (r, c): r*row + c + offset, offset = kh*d*row + kw*d, with rows of the padded image's length.

    Raises ArgumentError for a pixel outside the output, and as `Window.of`.

    >>> offset_table(3, 2).axes[0].get_title()
    'offsets 0, 1, 3, 4 + pixel at 0'
    """
    height, width = (size, size) if isinstance(size, int) else size
    window = Window.of(kernel, 1, padding, dilation, size=(height, width))
    rows, columns = window.checked_output_size((height, width))
    if not 0 <= pixel < rows * columns:
        raise ArgumentError(f"`pixel` (={pixel}) must be one of the {rows * columns} of the output, {rows} x {columns}")
    (top, bottom), (left, right) = window.padding
    row, tall = width + left + right, height + top + bottom
    offsets = [kh * window.dilation[0] * row + kw * window.dilation[1] for kh in range(window.kernel[0]) for kw in range(window.kernel[1])]
    first = pixel // columns * row + pixel % columns
    figure = new_figure(0.55 * row + 0.6, 0.55 * tall + 0.9)
    axes = figure.subplots()
    for index in range(row * tall):
        r, c = divmod(index, row)
        inside = top <= r < top + height and left <= c < left + width
        tap = index - first in offsets
        axes.add_patch(_cell(c, r, COLOURS[1] if tap else "#DCEBF5" if inside else "white"))
        axes.text(c, r, str(index), ha="center", va="center", fontsize=9, color="black" if inside or tap else "0.5")
    axes.set(xlim=(-0.6, row - 0.4), ylim=(tall - 0.4, -0.6), aspect="equal", title=f"offsets {', '.join(map(str, offsets))} + pixel at {first}")
    axes.title.set_fontsize(9)
    axes.axis("off")
    return figure


def _cell(column: int, row: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="0.6")


def roofline(points: Mapping[str, tuple[float, float]], peak: float, bandwidth: float) -> Figure:
    """Attained Gflop/s of kernels over their flops per byte, under the machine's roof min(peak, bandwidth*intensity).

    `points`: name -> (flops per byte, Gflop/s); `peak` in Gflop/s, `bandwidth` in GB/s. Both axes are logarithmic.

    Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.

    Raises ArgumentError for a peak or bandwidth that is not positive.

    >>> roofline({"conv": (20.0, 90.0)}, peak=116, bandwidth=20).axes[0].get_xscale()
    'log'
    """
    for name, value in (("peak", peak), ("bandwidth", bandwidth)):
        if not value > 0:
            raise ArgumentError(f"`{name}` (={value}) must be positive")
    from matplotlib.ticker import LogLocator, NullFormatter

    ridge = peak / bandwidth
    reach = [intensity for intensity, _ in points.values()]
    intensities = np.geomspace(min([*reach, ridge]) / 4, max([*reach, ridge]) * 4, 200)
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    axes.loglog(intensities, np.minimum(peak, bandwidth * intensities), color="black", label=f"roof: {peak:.3g} Gflop/s, {bandwidth:.3g} GB/s")
    for (name, (intensity, speed)), colour, marker in zip(points.items(), COLOURS * len(points), "osD^vP*X" * len(points), strict=False):
        axes.loglog([intensity], [speed], marker=marker, linestyle="", color=colour, label=name)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="flops per byte of memory traffic", ylabel="Gflop/s")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return figure


def bars(values: Mapping[str, float], quantity: str, marks: Sequence[float] = ()) -> Figure:
    """Horizontal bars with their numbers, such as times or speeds; `marks` are dashed lines across.

    >>> bars({"loops": 2.0, "tile": 1.0}, "seconds").axes[0].get_xlabel()
    'seconds'
    """
    figure = new_figure(6.4, 0.42 * len(values) + 0.9)
    axes = figure.subplots()
    drawn = axes.barh(list(values), list(values.values()), color=COLOURS[0])
    axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
    for mark in marks:
        axes.axvline(mark, color="black", linestyle="--", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel(quantity)
    axes.margins(x=0.12)
    return figure
