"""Certified sums and means against `exact` and math.fsum, bit by bit; faults planted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from npreparam import ArgumentError, DTypeError, exact, kernels
from npreparam.certified import _sums
from npreparam.certified.arithmetic import mean, sum
from npreparam.kernels import _threads
from tests.certified.test_batch_norm import any_bits, kind_of
from tests.layouts import layouts
from tests.tolerances import assert_same_bits

NAMES = ["float16", "bfloat16", "float32", "float64"]


def agree(x, axis=None, keepdims=False, out_dtype="same"):
    """The bits of `exact`; the number of repairs."""
    repaired = 0
    for got, want in ((sum, exact.sum), (mean, exact.mean)):
        value, count = got(x, axis, keepdims, out_dtype)
        with np.errstate(invalid="ignore"):
            assert_same_bits(value, want(x, axis, keepdims, out_dtype))
        repaired += count
    return repaired


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), ()])
def test_at_random(name, axis):
    x = np.random.default_rng(0).standard_normal((7, 5, 6)).astype(kind_of(name))
    for keepdims in (False, True):
        assert agree(x, axis, keepdims) <= 4
    for out in ("float16", "float32", "float64"):
        agree(x, axis, out_dtype=out)


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_any_bits_at_all(name, finite):
    kind, rng = kind_of(name), np.random.default_rng(1)
    x = any_bits(rng, (60, 2, 4), kind)
    with np.errstate(invalid="ignore"):  # ml_dtypes, of a signalling NaN
        x = np.where(np.isfinite(x), x, np.ones_like(x)) if finite else x
    for axis in (0, 1, 2, None):
        agree(x, axis)


@given(st.data())
def test_chosen_by_hypothesis(data):
    kind = np.dtype(data.draw(st.sampled_from([np.float16, np.float32, np.float64])))
    x = data.draw(arrays(kind, array_shapes(max_dims=2, max_side=6), elements=st.floats(width=kind.itemsize * 8), fill=st.nothing()))
    agree(x, data.draw(st.sampled_from([None, 0, -1])))


@pytest.mark.parametrize("exponents", [0, 30, 300])
def test_fsum(exponents):
    """Sums of a thousand terms that cancel: Python's own correctly rounded sum."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((20, 1000)) * 10.0 ** rng.integers(-exponents, exponents + 1, (20, 1000))
    x[:, 500:] = -x[:, :500] * (1 + 2.0**-50 * rng.integers(-1, 2, (20, 500)))
    assert sum(x, 1).value.tolist() == [math.fsum(row) for row in x.tolist()]


@pytest.mark.parametrize("name", NAMES)
def test_ties_and_exact_sums(name):
    """1 + half a spacing, 3 half spacings, 2^-p more or less: the tie is found, and sums that are exact need no repair."""
    kind = kind_of(name)
    half = np.spacing(kind.type(1)).astype(np.float64) / 2
    tiny = float(half) ** 2
    rows = [[1, half, 0], [1, 3 * half, 0], [1, half, tiny], [1, half, -tiny], [-1, -half, tiny], [1, -1, 0], [-0.0, -0.0, -0.0]]
    rows = np.array(rows).astype(kind)
    agree(rows, 1)
    lattice = np.random.default_rng(3).integers(-8, 9, (50, 4)).astype(kind)
    assert sum(lattice, 1).repaired == 0
    assert mean(lattice, 1).repaired == 0
    assert sum(rows[:2], 1).repaired == 0 or name != "float64"


def test_many_repairs_at_once():
    """More open rows than are summed as integers at a time."""
    x = np.tile([1.0, 2.0**-53, 2.0**-110, 2.0**-170], (_sums.AT_ONCE + 5, 1))
    value, repaired = sum(x, 1)
    assert repaired == len(x)
    assert (value == 1 + 2.0**-52).all()


def test_empty_and_shapes():
    for shape, axis in (((0, 3), 0), ((0, 3), None), ((3, 0), 0), ((2, 0, 3), (0, 1)), ((), None)):
        x = np.zeros(shape, np.float32)
        agree(x, axis)
        agree(x, axis, True)


def test_threads_and_layouts():
    x = np.random.default_rng(4).standard_normal((30, 20, 10, 7)).astype(np.float32)
    want = sum(x, (0, 2)).value
    threads = _threads.get_num_threads()
    try:
        for count in (1, 3):
            _threads.set_num_threads(count)
            assert_same_bits(sum(x, (0, 2)).value, want)
    finally:
        _threads.set_num_threads(threads)
    for _, other in layouts(x):
        assert_same_bits(sum(other, (0, 2)).value, want)


def test_bad_input():
    with pytest.raises(ArgumentError, match="`axis`"):
        sum(np.zeros(3), 1)
    with pytest.raises(DTypeError, match="`x` has dtype"):
        mean(np.arange(3))
    with pytest.raises(DTypeError, match="out_dtype"):
        sum(np.zeros(3), out_dtype=int)


@pytest.mark.parametrize("fault", ["plain sums", "no bound", "double rounding", "one ulp", "a wrong count"])
def test_faults_are_caught(monkeypatch, fault):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((300, 40))
    x = np.concatenate([x, -x * (1 + 2.0**-45 * rng.standard_normal(x.shape)), np.full((300, 1), 2.0**-54), np.ones((300, 1))], 1)
    x[:100] = 0
    x[:50, :3], x[50:100, :3] = [1, 2.0**-53, 2.0**-107], [1, 2.0**-53, -(2.0**-107)]
    enclose = kernels.arithmetic.enclose_sums

    def faulty(rows, counts, spread, low, high):
        enclose(rows, counts, spread, low, high)
        if fault == "plain sums":
            low[:] = high[:] = rows.sum(1) / counts
        elif fault == "no bound":
            low[:] = high
        elif fault == "one ulp":
            low[200] = high[200] = np.nextafter(low[200], 9)
        elif fault == "a wrong count":
            enclose(rows, counts + 1, spread, low, high)

    monkeypatch.setattr(kernels.arithmetic, "enclose_sums", faulty)
    if fault == "double rounding":
        monkeypatch.setattr(_sums, "exact_row_sums", lambda rows: [exact.as_fractions(row.sum(keepdims=True), "x")[0] for row in rows])
    with pytest.raises(AssertionError):
        agree(x, 1)
