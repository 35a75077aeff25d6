"""The twins checked against each other and against NumPy, on integers with ==, so that a test which trusts one can."""

import ast
import pathlib

import numpy as np
import pytest

from tests import naive

RNG = np.random.default_rng(0)
GEOMETRIES = [((1, 1), ((0, 0), (0, 0)), (1, 1)), ((2, 1), ((1, 0), (2, 3)), (1, 2)), ((3, 2), ((0, 2), (1, 1)), (2, 1))]


def integers(*shape):
    return RNG.integers(-9, 10, shape)


def test_it_imports_nothing_of_the_library():
    tree = ast.parse(pathlib.Path(naive.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported == {"itertools", "numpy"}


@pytest.mark.parametrize(("stride", "padding", "dilation"), GEOMETRIES)
def test_convolution_is_a_product_with_columns_and_the_gradients_are_its_adjoints(stride, padding, dilation):
    x, w = integers(2, 3, 5, 6), integers(4, 3, 2, 3)
    geometry = (stride, padding, dilation)
    y, columns = naive.conv2d(x, w, None, *geometry, 1), naive.im2col(x, (2, 3), *geometry)
    assert (y.reshape(2, 4, -1) == [naive.matmul(w.reshape(4, -1), c) for c in columns]).all()
    gy, other = integers(*y.shape), integers(*columns.shape)
    expected = (gy * y).sum()
    assert (naive.conv2d_input_grad(gy, w, x.shape, *geometry, 1) * x).sum() == expected
    assert (naive.conv2d_weight_grad(gy, x, w.shape, *geometry, 1) * w).sum() == expected
    assert (naive.col2im(other, x.shape, (2, 3), *geometry) * x).sum() == (other * columns).sum()
    assert (naive.col2im(other, x.shape, (2, 3), *geometry) * x).sum() != (other[..., ::-1] * columns).sum()  # it can differ


def test_groups_are_convolutions_side_by_side():
    x, w = integers(1, 4, 3, 3), integers(6, 2, 2, 2)
    geometry = GEOMETRIES[0]
    halves = [naive.conv2d(x[:, i:i + 2], w[j:j + 3], None, *geometry, 1) for i, j in ((0, 0), (2, 3))]
    assert (naive.conv2d(x, w, None, *geometry, 2) == np.concatenate(halves, 1)).all()


def test_products():
    x, w, b = integers(3, 4), integers(2, 4), integers(2)
    assert (naive.matmul(x, w.T) == x @ w.T).all()
    assert (naive.linear(x, w, b) == x @ w.T + b).all()
    assert (naive.linear(x, w, None) == x @ w.T).all()


def test_pools_of_whole_images():
    x, gy = 4.0 * integers(2, 3, 2, 2), 4.0 * integers(2, 3)
    window = ((2, 2), (1, 1), ((0, 0), (0, 0)))
    assert (naive.global_avg_pool(x) == x.mean((2, 3))).all()
    assert (naive.global_avg_pool(x) == naive.avg_pool2d(x, *window, True)[..., 0, 0]).all()
    assert (naive.global_avg_pool_grad(gy, x.shape) == naive.avg_pool2d_grad(gy[..., None, None], x.shape, *window, True)).all()
    assert (naive.max_pool2d(x, *window)[0][..., 0, 0] == x.max((2, 3))).all()


def test_batch_norm_train():
    """Channel 0 holds -1, 1 (mean 0, biased variance 1, unbiased 2), channel 1 holds 2, 6 (4, 4, 8)."""
    x = np.array([[[[-1.0]], [[2.0]]], [[[1.0]], [[6.0]]]])
    gamma, beta, old_mean, old_var = np.array([[1.0, 2.0], [0.0, 1.0], [4.0, 8.0], [4.0, 4.0]])
    y, mean, var = naive.batch_norm_train(x, gamma, beta, old_mean, old_var, 0.25, 0)
    assert y[..., 0, 0].tolist() == [[-1, -1], [1, 3]]
    assert mean.tolist() == [3, 7]
    assert var.tolist() == [3.5, 5]


def test_affine_conv_by_hand():
    """y[j] = 10 + 1*x[2j - 1] + 2*x[2j] with 5 beyond the border; the transposed map scatters."""
    x = np.array([[1.0, 2.0, 3.0]])
    matrices = [np.array([[1.0]]), np.array([[2.0]])]
    y = naive.affine_conv(x, ((-1,), (0,)), matrices, np.array([10.0]), (2,), (0,), np.array([5.0]))
    assert y.tolist() == [[17.0, 18.0]]
    y = naive.affine_conv(x, ((-1,), (0,)), matrices, np.array([10.0]), (2,), (1,), None, transposed=True)
    assert y.tolist() == [[12.0, 12.0, 14.0, 13.0, 16.0]]


def test_dense_matrix_scale_and_pad_by_hand():
    assert naive.dense_matrix(np.array([[1.0], [2.0]]), 2).tolist() == [[1, 0], [0, 2]]
    x = np.array([[[[1.0]], [[2.0]]]])
    assert naive.scale_shift(x, [2, 3], [1, 1]).ravel().tolist() == [3, 7]
    assert naive.pad(x, ((0, 1), (0, 0)), [8.0, 9.0]).ravel().tolist() == [1, 8, 2, 9]
