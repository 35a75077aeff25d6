"""Hypothesis strategies for data on which every honest implementation must be exact. The one module of `certified` that imports Hypothesis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import arrays
except ImportError:
    raise ImportError("npreparam.certified.strategies needs Hypothesis: pip install 'npreparam[test]'") from None

Drawn = dict[str, Any]
MIDDLE = 8  # exponents of the lattices' spacings are drawn from -MIDDLE to MIDDLE, inside the normal range of every format


def lattice(shape: tuple[int, ...], largest: int, exponent: int) -> st.SearchStrategy[NDArray[np.float64]]:
    """Arrays of integers of at most `largest` times 2^exponent.

    >>> from hypothesis import find
    >>> find(lattice((2,), 3, -1), lambda x: x.sum() >= 2).tolist()
    [0.5, 1.5]
    """
    return arrays(np.float64, shape, elements=st.integers(-largest, largest).map(lambda k: math.ldexp(k, exponent)), fill=st.just(0.0))


@st.composite
def geometries(draw: st.DrawFn) -> Drawn:
    """Small convolutions, the output's size drawn first: `x_shape`, `w_shape`, and `stride`, `padding`, `dilation` and `groups`.

    >>> from hypothesis import find
    >>> smallest = find(geometries(), lambda drawn: True)
    >>> smallest["x_shape"], smallest["w_shape"], smallest["padding"]
    ((1, 1, 1, 1), (1, 1, 1, 1), ((0, 0), (0, 0)))
    """
    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    groups, kernel, stride, dilation, output = draw(st.integers(1, 2)), pair(1, 3), pair(1, 2), pair(1, 2), pair(1, 3)
    inputs, outputs, batch = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    padding, size = [], []
    for k, s, d, out in zip(kernel, stride, dilation, output, strict=True):
        covered = (out - 1) * s + d * (k - 1) + 1  # input and padding that the windows cover
        before = draw(st.integers(0, min(2, covered - 1)))
        after = draw(st.integers(0, min(2, covered - 1 - before)))
        padding.append((before, after))
        size.append(covered - before - after)
    return {"x_shape": (batch, groups * inputs, *size), "w_shape": (outputs, inputs, *kernel), "stride": stride, "padding": tuple(padding),
            "dilation": dilation, "groups": groups}


@st.composite
def order_free(draw: st.DrawFn, significand_bits: int = 24) -> Drawn:
    """Arguments (`x`, `w`, `b`, geometry) of a convolution for which `is_order_free(..., significand_bits)` holds everywhere.

    Integers of at most X and W times powers of two, with (n*X*W + bias) <= 2^p for n taps: the bits are shared out between x, w and the
    number of taps, and the bias takes what is left.

    >>> from hypothesis import find
    >>> sorted(find(order_free(8), lambda drawn: True))
    ['b', 'dilation', 'groups', 'padding', 'stride', 'w', 'x']
    """
    geometry = draw(geometries())
    x_shape, w_shape = geometry.pop("x_shape"), geometry.pop("w_shape")
    taps = math.prod(w_shape[1:])
    room = 2 ** (significand_bits - 1) // taps
    largest_x = draw(st.integers(1, max(1, min(room, 2**(significand_bits // 2)))))
    largest_w = max(0, room // largest_x)
    of_x, of_w = draw(st.integers(-MIDDLE, 0)), draw(st.integers(-MIDDLE // 2, 0))
    x, w = draw(lattice(x_shape, largest_x if largest_w else 0, of_x)), draw(lattice(w_shape, largest_w, of_w))
    b = draw(st.none() | lattice(w_shape[:1], 2 ** (significand_bits - 1), of_x + of_w))
    return {"x": x, "w": w, "b": b, **geometry}
