"""What adapters share: geometry as numbers, and bfloat16 between frameworks."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Padding, Size2, Window

Array = NDArray[Any]


class Unsupported(NotImplementedError):
    """The framework does not offer this case at all: absent, not wrong."""


def framework(module: str, package: str) -> Any:
    """An installed framework. Raises ImportError that says what to install, or why what is installed does not work."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # something that the framework itself needs
        raise ImportError(f"this adapter needs {package}, which is not installed: pip install '{package}'") from None
    except ImportError as error:
        raise ImportError(f"this adapter needs {package}, which is installed but cannot be imported: {error}") from error


def window_of(x_shape: Sequence[int], w_shape: Sequence[int], stride: Size2, padding: Padding, dilation: Size2 = 1, groups: int = 1) -> Window:
    """The geometry of a convolution as numbers: padding names are resolved by the input's size."""
    return Window.of(tuple(w_shape[2:]), stride, padding, dilation, groups, size=(x_shape[2], x_shape[3]))


def pool_window(x_shape: Sequence[int], kernel: Size2, stride: Size2 | None, padding: Padding) -> Window:
    """The geometry of a pooling as numbers."""
    return Window.of(kernel, kernel if stride is None else stride, padding, size=(x_shape[2], x_shape[3]))


def symmetric(window: Window) -> tuple[int, int] | None:
    """(height, width) padding where both ends of each axis have the same, else None."""
    (top, bottom), (left, right) = window.padding
    return (top, left) if (top, left) == (bottom, right) else None


def widths(window: Window) -> tuple[tuple[int, int], ...]:
    """The padding of all four axes of NCHW, as numpy.pad has it."""
    return ((0, 0), (0, 0), *window.padding)


def transposed_window(x_shape: Sequence[int], w_shape: Sequence[int], stride: Size2, padding: Padding, dilation: Size2, groups: int) -> Window:
    """The geometry of a transposed convolution, whose padding is numbers only; weights are (in, out/groups, kh, kw)."""
    return Window.of(tuple(w_shape[2:]), stride, padding, dilation, groups, size=None)


def is_bfloat16(array: Array) -> bool:
    """Whether an array holds ml_dtypes' bfloat16."""
    return array.dtype.name == "bfloat16"


def as_bfloat16(bits: Array) -> Array:
    """16-bit integers as the bfloat16 numbers that they encode."""
    import ml_dtypes

    return bits.view(np.dtype(ml_dtypes.bfloat16))


def ordinary(array: Array) -> Array:
    """An array that any framework can borrow: native, aligned, writeable, strides positive; copied only where it is not."""
    fine = array.flags.aligned and array.flags.writeable and array.dtype.isnative and all(
        stride > 0 and stride % array.itemsize == 0 for stride, n in zip(array.strides, array.shape, strict=True) if n > 1)
    return array if fine else np.array(array, array.dtype.newbyteorder("="), order="C")
