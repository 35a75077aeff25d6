"""Maps on a grid of fixed size, against images of one pixel; products of fractions over a common denominator."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import FusionError
from npreparam.fuse import from_conv, from_conv_transpose, on_grid
from npreparam.fuse.scalars import matmul
from tests.naive import conv2d


@given(seed=st.integers(0, 99), size=st.tuples(st.integers(2, 4), st.integers(2, 4)), stride=st.integers(1, 2), groups=st.sampled_from([1, 2]))
def test_every_pixel_by_itself(seed, size, stride, groups):
    """With ==: the numbers are small integers."""
    rng = np.random.default_rng(seed)
    w, b = rng.integers(-9, 10, (4, 4 // groups, 3, 3)).astype(float), rng.integers(-9, 10, 4).astype(float)
    conv = on_grid(from_conv(w, b, stride, 1, 1, groups), size)
    pixels = np.eye(4 * size[0] * size[1]).reshape(-1, 4, *size)
    responses = conv2d(pixels, w, b, (stride, stride), ((1, 1), (1, 1)), (1, 1), groups).reshape(len(pixels), -1)
    dense = np.zeros((conv.outputs, conv.inputs))
    for row, column in np.ndindex(conv.outputs, conv.inputs // groups):
        dense[row, row // (conv.outputs // groups) * (conv.inputs // groups) + column] = conv.blocks[0, row, column]
    assert (dense.T + conv.bias == responses).all()


def test_what_no_matrix_holds_is_refused():
    with pytest.raises(FusionError, match="transposed"):
        on_grid(from_conv_transpose(np.ones((1, 1, 2, 2)), stride=2), (3, 3))
    with pytest.raises(FusionError, match="constant other than 0"):
        on_grid(from_conv(np.ones((1, 1, 3, 3)), padding=1).padded_with(np.ones(1)), (3, 3))


NUMBERS = st.fractions(-8, 8, max_denominator=2**30) | st.integers(-3, 3)


@given(data=st.data(), shape=st.tuples(*[st.integers(1, 3)] * 3))
def test_exact_products(data, shape):
    n, m, k = shape
    a, b = (np.array(data.draw(st.lists(NUMBERS, min_size=r * c, max_size=r * c)), object).reshape(r, c) for r, c in ((n, m), (m, k)))
    result = matmul(a, b)
    assert (result == np.matmul(a, b)).all()
    assert all(isinstance(number, Fraction) for number in result.flat)
