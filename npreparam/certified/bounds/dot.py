"""Sums of products: dot products, matrix products, linear layers, and the core that direct convolutions share with them.

With n products, S = sum |x||w| and f the growth of the profile, an implementation that uses x^ and w^ in place of x and w is within

    |y^ - y| <= f*(S^ + a) + a + (S^ - S),   S^ = sum |x^||w^|,   a = n*eta (underflow)

of the exact sum of products; S^ - S is at most sum dx*|w| + (|x| + dx)*dw. Where the output has a format of its own, its rounding follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam.certified.bounds._majorant import Floats, quiet, up
from npreparam.certified.bounds.profile import Profile, profiled

Product = Callable[[Floats, Floats], Floats]


@quiet
def sum_of_products_bound(product: Product, operands: tuple[Any, Any], terms: Any, length: int, profile: Profile,
                          bias: Any = None) -> Floats:
    """The bound above for any bilinear map in float64 whose elements are sums of products: a convolution, a gradient of it, a matrix product.

    `terms` are the products in each element, zeros of padding left out, and `length` with them. `bias` must broadcast against the result.
    """
    (x, dx), (w, dw) = (profile.operand(value, f"operand {i}") for i, value in enumerate(operands))
    reach_x, reach_w = np.abs(x) + dx, np.abs(w) + dw
    size, drift = up(product(reach_x, reach_w), terms), np.zeros(())
    if dx.any():
        drift = drift + up(product(dx, np.abs(w)), terms)
    if dw.any():
        drift = drift + up(product(reach_x, dw), terms)
    value = size if profile.output == profile.accumulator else up(np.abs(product(x, w)) + (terms + 2) * 2.0**-52 * size, terms)
    b, db, more = None, 0.0, 0
    if bias is not None:
        b, db = profile.addend(bias, "b")
        size, drift, more = size + np.abs(b) + db, drift + db, 1
    growth, tiny = profile.growth(terms, length, more), profile.underflow(terms)
    error = growth * (size + tiny) + tiny + drift
    return up(profile.finish(error, value, size + tiny, b))


def direct(profile: Profile, what: str) -> None:
    """Refuse a profile of an algorithm that `what` does not have."""
    if profile.algorithm != "direct":
        raise ArgumentError(f"`profile` has the algorithm {profile.algorithm!r}, but {what} is bounded for 'direct' only")


@profiled
def matmul_bound(a: Any, b: Any, profile: Profile | str | None = None) -> Floats:
    """How far an honest product of two matrices may be from the exact one.

    |y^ - y| <= f*(S + K*eta) + K*eta for y = a @ b, S = |a| @ |b|, f = K*u in any order, to nearest; the general form heads this module.

    a is (M, K), b (K, N), of any float or integer dtype; the bound is a float64 array (M, N), infinite where the format may overflow.

    Rounding: upwards; the bound is sound although it is computed in float64.

    Raises ShapeError, DTypeError, ArgumentError (NaN, infinity; a profile that is not direct).

    Source: Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34(2), 2013; ASNA, eq. 3.5 (other orders) and section 2.8 (underflow).

    >>> bool(matmul_bound(np.ones((1, 4)), np.ones((4, 1)), "float32").item() / (4 * 4 * 2.0**-24) - 1 < 2**-40)
    True
    """
    direct(profile, "a matrix product")
    length = np.shape(a)[-1] if np.ndim(a) else 0
    return sum_of_products_bound(ops.matmul, (a, b), length, length, profile)


@profiled
def dot_bound(x: Any, y: Any, profile: Profile | str | None = None) -> float:
    """How far an honest dot product of two vectors may be from the exact one; `matmul_bound` for one row and one column.

    >>> dot_bound(np.zeros(3), np.ones(3), "float32") == 3 * 2.0**-149    # only underflow
    False
    >>> dot_bound(np.zeros(3), np.ones(3), "float32") < 3.001 * 2.0**-149
    True
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 1 or x.shape != y.shape:
        raise ShapeError(f"`x` has shape {x.shape} and `y` {y.shape}; both must be vectors of one length")
    return matmul_bound(x[None], y[:, None], profile).item()


@profiled
def linear_bound(x: Any, w: Any, b: Any = None, profile: Profile | str | None = None) -> Floats:
    """How far an honest linear layer x @ w.T + b may be from the exact one.

    As `matmul_bound`, with the bias as one more term of the sum: f = (K + 1)*u, S = |x| @ |w.T| + |b|.

    x is (N, I), w (O, I), b (O,); the bound is (N, O).

    Raises ShapeError, DTypeError, ArgumentError.

    >>> linear_bound(np.ones((2, 3)), np.ones((4, 3)), np.ones(4)).shape
    (2, 4)
    """
    direct(profile, "a linear layer")
    w = np.asarray(w)
    if w.ndim != 2 or np.ndim(x) != 2 or np.shape(x)[1] != w.shape[1] or (b is not None and np.shape(b) != w.shape[:1]):
        raise ShapeError(f"`x` of shape {np.shape(x)}, `w` of shape {w.shape} and `b` of shape {np.shape(b)} "
                         "must be (batch, inputs), (outputs, inputs) and (outputs,)")
    return sum_of_products_bound(ops.matmul, (x, w.T), w.shape[1], w.shape[1], profile, b)
