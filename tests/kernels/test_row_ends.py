"""Tiles that run over the end of an image row: with kernels one row high, the rows of an image and each row as an image give the same bits."""

import numpy as np
import pytest

from npreparam import Window
from npreparam.kernels import _correlate, _plan
from npreparam.kernels.conv2d import forward_sums, input_grad_sums
from tests.tolerances import assert_same_bits

ROWS, OUTPUTS = 5, 12  # whole tiles are stored straight into the result
REACHES = [(1, 1, 0), (2, 1, 0), (3, 1, 1), (3, 2, 2), (4, 3, 0)]  # kernel width, dilation, padding: 0 to 9 elements between the rows in memory


def as_images(x):
    """Each row an image of its own, in which no tile meets a second row."""
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3).reshape(-1, x.shape[1], 1, x.shape[3]))


def as_rows(y):
    return y.reshape(*y.shape[:-4], -1, ROWS, y.shape[-3], y.shape[-1]).swapaxes(-3, -2)


def both(columns, reach, dtype, pair=False):
    """(forward, input gradient), of images and of their rows."""
    kernel, dilation, padding = reach
    rng, window = np.random.default_rng(columns), Window.of((1, kernel), 1, (0, padding), (1, dilation))
    wide = columns + (kernel - 1) * dilation - 2 * padding
    x, w = rng.standard_normal((2, 3, ROWS, wide)).astype(dtype), rng.standard_normal((OUTPUTS, 3, 1, kernel)).astype(dtype)
    gy = rng.standard_normal((2, OUTPUTS, ROWS, columns)).astype(dtype)
    w_back = w.transpose(1, 0, 2, 3).repeat(4, axis=1)[:, :OUTPUTS].repeat(4, axis=0)  # 12 channels of the input, too
    yield forward_sums(x, w, None, window, pair=pair), as_rows(forward_sums(as_images(x), w, None, window, pair=pair))
    yield (input_grad_sums(gy, w_back, None, (ROWS, wide), window, pair=pair),
           as_rows(input_grad_sums(as_images(gy), w_back, None, (1, wide), window, pair=pair)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_rows_together_and_alone_have_the_same_bits(dtype, pair, packed, monkeypatch):
    monkeypatch.setattr(_correlate, "UNPACKED_TILES", 0 if packed else 10**9)
    for columns in range(6, 60):
        for reach in REACHES:
            for together, alone in both(columns, reach, dtype, pair):
                assert_same_bits(together, alone)


@pytest.mark.interpreted
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_twins_know_row_ends(dtype):
    for together, alone in both(28, REACHES[2], dtype):
        assert_same_bits(together, alone)


@pytest.mark.parametrize("itemsize", [4, 8])
def test_tiles_run_over_row_ends_where_that_takes_fewer(itemsize):
    """A 3x3 convolution: 14 columns take 13 tiles of 16, not 14; 7 columns would meet four rows; 32 columns need no seam."""
    def across(columns):
        _, plan = _plan.forward((1, 16, columns, columns), (OUTPUTS, 16, 3, 3), Window.of(3, 1, 1), itemsize)
        return int(plan.problems[0, _plan.ACROSS]), plan.row

    assert across(32) == (32, 34)
    assert across(14) == (14, 16)
    assert across(7) == ((7, 9) if itemsize == 8 else (9, 9))

