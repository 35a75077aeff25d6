"""The matrix product on the convolution's micro-kernel; valid input is assumed, `npreparam.ops.linear` checks it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam.kernels import _plan
from npreparam.kernels._correlate import product
from npreparam.kernels._memory import Strided, strided

Array = NDArray[Any]


def matmul(a: Array, b: Array) -> Array:
    """y[m, n] = sum over k of a[m, k] * b[k, n]."""
    (m, k), n = a.shape, b.shape[1]
    y = np.empty((m, n), a.dtype)
    if y.size:
        left, right = strided(a), strided(b)
        source, plan = _plan.matmul((m, k, n), left.strides, a.itemsize)
        image = Strided(right.span, right.start, (0, right.strides[0], 0, right.strides[1]))
        product(plan, 1, left, image, source, None, False, y)
    return y


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """y[n, o] = b[o] + sum over i of w[o, i] * x[n, i]: the product w x^T, stored transposed."""
    (batch, inputs), outputs = x.shape, w.shape[0]
    y = np.empty((batch, outputs), x.dtype)
    if y.size:
        left, right = strided(w), strided(x)
        source, plan = _plan.matmul((outputs, inputs, batch), left.strides, x.itemsize)
        plan = plan._replace(out=(0, 1, 0, outputs))
        image = Strided(right.span, right.start, (0, right.strides[1], 0, right.strides[0]))
        product(plan, 1, left, image, source, b, False, y)
    return y
