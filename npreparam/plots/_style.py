"""What all pictures share: resolution, palettes that colour-blind readers can tell apart, numbers written into cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from matplotlib.figure import Figure
except ImportError:
    raise ImportError("pictures need matplotlib: pip install 'npreparam[plots]'") from None

Array = NDArray[Any]
DPI = 120
DIVERGING, SEQUENTIAL = "PuOr_r", "cividis"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")  # Okabe and Ito, Color universal design, 2008


def heat(axes: Any, plane: Array, limit: float, form: str = "{:.2f}") -> Any:
    """A matrix as colours from -limit to limit, with its numbers in the cells."""
    image = axes.imshow(plane, cmap=DIVERGING, vmin=-limit, vmax=limit)
    for (i, j), value in np.ndenumerate(plane):
        axes.text(j, i, form.format(value + 0.0), ha="center", va="center", fontsize=8, color="white" if abs(value) > 0.6 * limit else "black")
    axes.set(xticks=[], yticks=[])
    return image


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, width and height in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")
