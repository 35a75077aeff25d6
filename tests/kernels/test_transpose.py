"""Transposed copies: every length, whole blocks and what is left of them, and nothing beside them is written."""

import numpy as np
import pytest

from npreparam.kernels._transpose import transpose


@pytest.mark.interpreted
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_lengths_up_to_three_blocks(dtype):
    rng = np.random.default_rng(0)
    for rows in range(20):
        for columns in range(20):
            source, step, across = rng.standard_normal((rows + 1, columns + 3)).astype(dtype), columns + 3, rows + 2
            target = np.full(5 + across * columns + 7, -1, dtype)
            transpose(source.reshape(-1), 2, step, (rows, columns), target, 5, across)
            expected = np.full_like(target, -1)
            expected[5 : 5 + across * columns].reshape(columns, across)[:, :rows] = source[:rows, 2 : 2 + columns].T
            np.testing.assert_array_equal(target, expected)
