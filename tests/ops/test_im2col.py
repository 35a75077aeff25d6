import numpy as np
import pytest

from npreparam import ArgumentError, ShapeError, ops
from tests import naive
from tests.ops.test_conv2d import AXES, assert_equal, integers


def test_every_small_axis_geometry():
    """Copies, so == with the loop twin; col2im is the adjoint; and w times the columns is the convolution, by the explicit route."""
    rng = np.random.default_rng(0)
    for size, kernel, stride, padding, dilation in AXES:
        if not naive.output_length(size, kernel, stride, *padding, dilation):
            continue
        x, w = integers(rng, (2, 2, size, 3), np.float64), integers(rng, (3, 2, kernel, 2), np.float64)
        geometry = ((stride, 1), (padding, (1, 0)), (dilation, 1))
        columns = ops.im2col(x, (kernel, 2), *geometry)
        assert_equal(columns, naive.im2col(x, (kernel, 2), *geometry))
        probe = integers(rng, columns.shape, np.float64)
        assert np.sum(probe * columns) == np.sum(ops.col2im(probe, x.shape, (kernel, 2), *geometry) * x)
        y = ops.conv2d(x, w, None, *geometry)
        assert_equal((w.reshape(3, -1) @ columns).reshape(y.shape), y)


def test_bad_calls():
    with pytest.raises(ShapeError, match="no window fits"):
        ops.im2col(np.zeros((1, 1, 2, 2)), 3)
    with pytest.raises(ShapeError, match="what `im2col` makes of `shape`"):
        ops.col2im(np.zeros((1, 4, 2)), (1, 1, 2, 2), 2)
    with pytest.raises(ArgumentError, match="`stride`"):
        ops.im2col(np.zeros((1, 1, 2, 2)), 1, stride=0)
