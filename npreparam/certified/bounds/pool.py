"""Average pooling: the mean of each window."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import ops
from npreparam._shapes import Padding, Size2
from npreparam.certified.bounds._majorant import Floats, quiet, up
from npreparam.certified.bounds.profile import Profile, profiled
from npreparam.certified.bounds.reduce import mean_error


@profiled
@quiet
def avg_pool2d_bound(x: Any, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True,
                     profile: Profile | str | None = None) -> Floats:
    """How far an honest average pooling may be from the exact one.

    |y^ - y| <= (f + g + f*g) * sum|x|/count, f the growth of the n elements under the window, g two roundings: `mean_error`.

    x is NCHW, of any float or integer dtype, the rest as in `ops.avg_pool2d`; the bound is a float64 array of the output's shape.

    Rounding: upwards. Raises as `ops.avg_pool2d`, and ArgumentError (NaN, infinity).

    Source: Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34(2), 2013; ASNA, Lemma 3.1.

    >>> avg_pool2d_bound(np.ones((1, 1, 2, 2)), 2).shape
    (1, 1, 1, 1)
    """
    values, drift = profile.addend(x, "x")
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    geometry, whole = (kernel, stride, padding, count_include_pad), kernel[0] * kernel[1]
    size = up(ops.avg_pool2d(np.abs(values) + drift, *geometry), whole + 2)
    moved = up(ops.avg_pool2d(drift, *geometry), whole + 2)
    value = up(np.abs(ops.avg_pool2d(values, *geometry)) + (whole + 2) * 2.0**-52 * size)
    inside = np.rint(ops.avg_pool2d(np.ones((1, 1, *values.shape[2:])), kernel, stride, padding) * whole)
    return up(profile.finish(mean_error(size, inside, whole, profile) + moved, value, whole * size))
