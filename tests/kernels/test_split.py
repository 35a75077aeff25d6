"""Who pads the rows of a convolution: each thread its own, or all together where that would take too much memory; the bits are the same."""

import tracemalloc

import numpy as np
import pytest

from npreparam import Window, get_num_threads, kernels, ops, set_num_threads
from npreparam.kernels import _correlate, _plan, _scratch, _split
from tests.kernels.test_conv2d import GEOMETRIES, all_three, draw
from tests.tolerances import assert_same_bits


@pytest.fixture(autouse=True)
def _restore_threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


@pytest.mark.parametrize("together", [1, 2**16, 2**25])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_rows_padded_together_change_no_bit(case, together, monkeypatch):
    arguments = draw(np.random.default_rng(1), case, np.float32)
    set_num_threads(1)
    expected = all_three(*arguments)
    found = []

    def recorded(*args):
        found.append(_split.split_for(*args))
        return found[-1]

    monkeypatch.setattr(_correlate, "SMALL_PRODUCT", 0)
    monkeypatch.setattr(_correlate, "split_for", recorded)
    for name, value in {"OWN_BYTES": 0, "TOGETHER_BYTES": together, "COMPUTED_AT_LEAST": 1}.items():
        monkeypatch.setattr(_split, name, value)
    set_num_threads(3)
    for got, want in zip(all_three(*arguments), expected, strict=True):
        assert_same_bits(got, want)
    assert any(split.together for split, *_ in found)


def test_eight_threads_hold_no_more_than_the_padded_input_and_a_mebibyte():
    """Taps reach as far as 24 rows here, so that a strip is the whole image: one for each thread would be eight images."""
    x, w = np.ones((1, 64, 32, 32), np.float32), np.ones((256, 64, 3, 3), np.float32)
    set_num_threads(8)
    ops.conv2d(x, w, None, 1, 12, 12)  # compiled, planned, helpers started
    _scratch._buffers.kept.clear()
    tracemalloc.start()
    y = ops.conv2d(x, w, None, 1, 12, 12)
    peak = tracemalloc.get_traced_memory()[1] - y.nbytes
    tracemalloc.stop()
    packed = -(-256 // kernels._cpu.ROWS) * kernels._cpu.ROWS * w[0].nbytes
    assert peak <= 64 * (32 + 2 * 12) ** 2 * x.itemsize + packed + 2**20


@pytest.mark.parametrize("threads", [1, 2, 8, 64])
@pytest.mark.parametrize("channels", [3, 64, 512])
@pytest.mark.parametrize("images", [1, 8])
def test_rooms_are_few_and_no_thread_is_without_work(images, channels, threads):
    for size, dilation in ((7, 1), (56, 1), (30, 12)):
        window = Window.of(3, 1, dilation, dilation)
        source, plan = _plan.forward((images, channels, size, size), (64, channels, 3, 3), window, 4)
        split, rooms, used = _split.split_for(plan, source, images, threads, 4)
        padded = images * channels * (size + 2 * dilation) ** 2 * 4
        assert rooms * split.room * 4 <= padded + _split.EXTRA_BYTES
        assert 1 <= used <= min(threads, -(-split.tasks // split.share))
        assert split.together or rooms == used
