"""A template: copy this file, keep the functions that your framework has, and judge it as `my_adapter.py` or `my_package.my_adapter`.

Functions that are left out count as absent, not as failures; so does a case for which one raises NotImplementedError. Arrays are NumPy's,
images NCHW, weights OIHW, `padding` an int, (h, w), ((top, bottom), (left, right)), or "SAME_UPPER", "SAME_LOWER", "VALID".

The shortest adapter that there is:

    import numpy as np
    import my_framework
    from npreparam.conformance import Declaration

    declaration = Declaration("mine", my_framework.__version__, dtypes=("float32",))

    def sigmoid(x):
        return np.asarray(my_framework.sigmoid(my_framework.tensor(x)))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._shapes import Padding, Size2
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.target import Declaration

declaration = Declaration(
    "template", "1.0",
    dtypes=("float32", "float64"),
    unsupported={"conv2d": ("dilation", "groups")},  # features that it does not have
    momentum="new",                                  # or "old": the statistic whose weight `momentum` is
    running_variance="unbiased",                     # or "biased"
    profiles={},                                     # such as {"float32": "tf32"}: the arithmetic, where it is not that of the dtype
    layouts=("contiguous",),                         # memory layouts in which it takes arrays
)


def set_threads(count: int) -> None:
    """Let the framework use so many threads; leave it out where there is no such setting."""


def conv2d(x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1) -> Array:
    """Replace the loop by a call of your framework, whose arrays become NumPy's again."""
    window = _arrays.window_of(x.shape, w.shape, stride, padding)  # padding names as numbers
    images = np.pad(x, _arrays.widths(window))
    y = np.zeros((len(x), len(w), *window.output_size(x.shape[2:])), x.dtype)
    for i, j in np.ndindex(*y.shape[2:]):
        top, left = i * window.stride[0], j * window.stride[1]
        patch = images[:, :, top : top + window.kernel[0], left : left + window.kernel[1]]
        y[:, :, i, j] = np.einsum("nchw,ochw->no", patch, w)
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def batch_norm(x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False, momentum: float = 0.1,
               eps: float = 1e-5) -> Any:
    """(y, running_mean, running_var) while training, else y; what is not there raises NotImplementedError."""
    if training:
        raise NotImplementedError("this template has no training")
    gamma, beta, mean, var = (value.reshape(1, -1, *[1] * (x.ndim - 2)) for value in (gamma, beta, running_mean, running_var))
    return (x - mean) / np.sqrt(var + x.dtype.type(eps)) * gamma + beta
