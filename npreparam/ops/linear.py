"""Matrix product and linear layer."""

from __future__ import annotations

from npreparam import kernels
from npreparam.ops._geometry import check_linear, check_product
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, same_dtype
from npreparam.ops.shape import sum as sum_over
from npreparam.ops.shape import transpose


@primitive
def matmul(a: Array, b: Array) -> Array:
    """Product of two matrices.

    y[m, n] = sum over k of a[m, k] * b[k, n]

    a is (M, K), b (K, N); float32 or float64, both the same; the result is C-contiguous.

    Rounding: each element is one chain of fused multiply-adds in the order of k; |error| <= K*u*sum|a||b| barring underflow.

    Raises ShapeError (rank, inner lengths), DTypeError.

    Source of the bound: Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34(2), 2013.

    >>> import numpy as np
    >>> matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    a, b = same_dtype(a=a, b=b)
    check_product(a, b)
    return kernels.matmul.matmul(a, b)


gradient(matmul, "a", lambda g, y, a: matmul(g, transpose(a.b)))
gradient(matmul, "b", lambda g, y, a: matmul(transpose(a.a), g))


@primitive
def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """Linear layer: every row of x times the transposed weights, plus a bias.

    y[n, o] = b[o] + sum over i of x[n, i] * w[o, i]

    x is (N, I), w (O, I), b (O,); float32 or float64, all the same; the result is C-contiguous.

    Rounding: each element is one chain of fused multiply-adds in the order of i begun from b[o]; |error| <= (I+1)*u*(|b| + sum|x||w|) barring
    underflow.

    Raises ShapeError (rank, channels), DTypeError.

    Source of the bound: Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34(2), 2013.

    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([[11.5]])
    """
    x, w, b = same_dtype(x=x, w=w, b=b, optional=("b",))
    check_linear(x, w, b)
    return kernels.matmul.linear(x, w, b)


gradient(linear, "x", lambda g, y, a: matmul(g, a.w))
gradient(linear, "w", lambda g, y, a: matmul(transpose(g), a.x))
gradient(linear, "b", lambda g, y, a: sum_over(g, axis=0))
