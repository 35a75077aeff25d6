import itertools
from fractions import Fraction

import numpy as np
import pytest

from npreparam import ShapeError, exact
from tests import naive


def fractions(rng, shape):
    values = np.empty(shape, object)
    values.ravel()[:] = [Fraction(int(a), int(b)) for a, b in zip(rng.integers(-9, 10, values.size), rng.integers(1, 8, values.size), strict=True)]
    return values


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), list(itertools.product(
    ((1, 1), (2, 3)), (((0, 0), (0, 0)), ((1, 0), (2, 1))), ((1, 1), (2, 1)), (1, 2))))
def test_the_definition_over_fractions(stride, padding, dilation, groups):
    """Equal to the loop twin, as identities of rational numbers; and the three are adjoint."""
    rng = np.random.default_rng(0)
    x, w, b = fractions(rng, (1, 2 * groups, 4, 4)), fractions(rng, (2 * groups, 2, 2, 2)), fractions(rng, (2 * groups,))
    geometry = (stride, padding, dilation, groups)
    y = exact.conv2d(x, w, b, *geometry, out_dtype=None)
    assert (y == naive.conv2d(x, w, b, *geometry)).all()
    gy = fractions(rng, y.shape)
    gx, gw = exact.conv2d_input_grad(gy, w, x.shape, *geometry, out_dtype=None), exact.conv2d_weight_grad(gy, x, w.shape, *geometry, out_dtype=None)
    assert (gx == naive.conv2d_input_grad(gy, w, x.shape, *geometry)).all()
    assert (gw == naive.conv2d_weight_grad(gy, x, w.shape, *geometry)).all()
    linear_part = y - b.reshape(1, -1, 1, 1)
    assert np.sum(gy * linear_part) == np.sum(gx * x) == np.sum(gw * w)


def test_one_rounding_where_a_chain_of_float32_needs_several():
    """2^24 + 1 - 2^24: every order of float32 additions that begins with the large pair apart loses the 1."""
    x = np.float32([[[[2**24, 1, -(2**24)]]]])
    assert exact.conv2d(x, np.ones((1, 1, 1, 3), np.float32)).item() == 1


def test_out_dtype_is_rounded_to_once():
    x = np.array([[[[1.0, 2.0**-25]]]])
    w = np.ones((1, 1, 1, 2))
    assert exact.conv2d(x, w, out_dtype=np.float32).item() == 1
    assert exact.conv2d(x, w).item() == 1 + 2.0**-25
    pytest.importorskip("ml_dtypes")
    assert str(exact.conv2d(x, w, out_dtype="bfloat16").dtype) == "bfloat16"


def test_linear():
    rng = np.random.default_rng(1)
    x, w, b = fractions(rng, (3, 4)), fractions(rng, (2, 4)), fractions(rng, (2,))
    assert (exact.linear(x, w, b, out_dtype=None) == naive.matmul(x, w.T) + b).all()


def test_bad_shapes():
    with pytest.raises(ShapeError, match=r"`in_channels` \(=3\) must be axis 1 of `w` \(=2\)"):
        exact.conv2d(np.zeros((1, 3, 2, 2)), np.zeros((1, 2, 1, 1)))
    with pytest.raises(ShapeError, match="both must have 4 axes"):
        exact.conv2d(np.zeros((3, 2, 2)), np.zeros((1, 2, 1, 1)))
    with pytest.raises(ShapeError, match="batch, inputs"):
        exact.linear(np.zeros((1, 3)), np.zeros((1, 2)))
