"""Certified batch norm against `exact`, bit by bit: every format, any floats, cancellation, NaN and infinities; and what must be caught."""

import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from npreparam import ArgumentError, DTypeError, ShapeError, exact, kernels
from npreparam.certified import _affine, _statistics
from npreparam.certified.batch_norm import batch_norm, batch_norm_grad
from npreparam.exact.roots import round_sum
from npreparam.exact.rounding import FORMATS, dtype_of
from npreparam.kernels import _threads
from tests.exact.halfway import certify_root
from tests.layouts import layouts
from tests.tolerances import assert_same_bits

module = sys.modules["npreparam.certified.batch_norm"]  # the package's attribute of this name is the function

NAMES = ["float16", "bfloat16", "float32", "float64"]


def kind_of(name):
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return dtype_of(name)


def vectors(rng, channels, kind):
    """gamma, beta, running mean and variance."""
    return [*(rng.standard_normal(channels).astype(kind) for _ in range(3)), rng.random(channels).astype(kind)]


def agree(x, gy, stats, eps=1e-5, momentum=0.1, out_dtype="same"):
    """Both functions in both modes have the bits of `exact`; the number of repairs."""
    repaired = 0
    with np.errstate(all="ignore"):
        for training in (False, True):
            got, want = (f(x, *stats, training, momentum, eps, out_dtype) for f in (batch_norm, exact.batch_norm))
            for a, b in zip(got.value if training else (got.value,), want if training else (want,), strict=True):
                assert_same_bits(a, b)
            grads, want = (f(gy, x, stats[0], *stats[2:], training, eps, out_dtype) for f in (batch_norm_grad, exact.batch_norm_grad))
            for a, b in zip(grads.value, want, strict=True):
                assert_same_bits(a, b)
            repaired += got.repaired + grads.repaired
    return repaired


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (40, 3), (2, 1, 1, 1), (2, 3, 1, 7)])
def test_at_random(name, shape):
    kind, rng = kind_of(name), np.random.default_rng(0)
    x, gy = (rng.standard_normal(shape).astype(kind) for _ in range(2))
    stats = vectors(rng, shape[1], kind)
    assert agree(x, gy, stats) <= x.size / 10
    for out in ("float16", "float32", "float64"):
        agree(x, gy, stats, out_dtype=out)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_two_has_rational_ties(name):
    """Two values differ from their mean by the same: xhat = 1 or -1 with eps = 0, and beta = a tie beside it: `exact` must decide."""
    kind = kind_of(name)
    x = np.array([[1, 3, 5], [2, 5, 9]], kind)
    one, beta = np.ones(3, kind), np.array([2.0**-p for p in (FORMATS[name].precision, FORMATS[name].precision + 1, 3)], kind)
    assert agree(x, x[::-1].copy(), [one, beta, 0 * one, one], eps=0) > 0


@pytest.mark.parametrize("name", NAMES)
def test_means_far_larger_than_deviations(name):
    """One unit in the last place is all that the values differ by: mean^2/var is up to 10^31, and y is right all the same."""
    kind, rng = kind_of(name), np.random.default_rng(1)
    ulp = np.spacing(kind.type(1)).astype(np.float64)
    x = (1 + ulp * rng.integers(0, 3, (4, 3, 3, 3))).astype(kind)
    x[:, 1] = -x[:, 1] * 1024
    x[:, 2] = 1
    x[0, 2, 0, 0] += np.spacing(kind.type(1))
    gy = rng.standard_normal(x.shape).astype(kind)
    agree(x, gy, vectors(rng, 3, kind), eps=0)
    assert batch_norm(x, *vectors(rng, 3, kind), training=True, eps=0).repaired <= x.size / 4


@pytest.mark.parametrize("name", NAMES)
def test_lattices(name):
    kind, rng = kind_of(name), np.random.default_rng(2)
    x, gy = (rng.integers(-3, 4, (4, 3, 3, 3)).astype(kind) for _ in range(2))
    x[:, 2] = 2  # variance 0
    gamma, beta, mean = (rng.integers(-2, 3, 3).astype(kind) for _ in range(3))
    agree(x, gy, [gamma, beta, mean, np.array([1, 4, 0], kind)], eps=0.25)
    agree(x, gy, [gamma, beta, mean, np.array([3.75, 0, 0], kind)], eps=0.25)


@pytest.mark.parametrize("name", NAMES)
def test_constant_channels_need_no_repair(name):
    kind = kind_of(name)
    x = np.full((4, 2, 3, 3), 1.5, kind)
    value, repaired = batch_norm(x, np.ones(2, kind), np.array([0, 3], kind), np.zeros(2, kind), np.ones(2, kind), training=True)
    assert repaired == 0
    assert_same_bits(value[0][:, 0], np.zeros((4, 3, 3), kind))
    assert (value[0][:, 1] == 3).all()


def any_bits(rng, shape, kind):
    size = int(np.prod(shape))
    return np.frombuffer(rng.bytes(size * kind.itemsize), FORMATS[kind.name].bits).view(kind).reshape(shape)


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_any_bits_at_all(name, finite):
    """Huge ranges, subnormal numbers, and where not `finite`, NaN and infinities everywhere."""
    kind, rng = kind_of(name), np.random.default_rng(3)
    for _ in range(4):
        x, gy = any_bits(rng, (3, 4, 2, 3), kind), any_bits(rng, (3, 4, 2, 3), kind)
        stats = [any_bits(rng, (4,), kind) for _ in range(4)]
        if finite:
            with np.errstate(invalid="ignore"):  # ml_dtypes, of a signalling NaN
                x, gy, *stats = (np.where(np.isfinite(v), v, np.ones_like(v)) for v in (x, gy, *stats))
        stats[3] = np.abs(stats[3])
        agree(x, gy, stats, eps=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_subnormal_numbers(name):
    kind, rng = kind_of(name), np.random.default_rng(4)
    eta = FORMATS[name].bits(1)
    x, gy = ((rng.integers(0, 9, (4, 3, 2, 2)) * eta).astype(FORMATS[name].bits).view(kind) for _ in range(2))
    stats = vectors(rng, 3, kind)
    agree(x, gy, stats)
    agree(x, gy, [stats[0], 0 * stats[1], x[0, :, 0, 0], stats[3]])


def test_a_mean_too_small_for_a_float_tells_the_sign_of_zero():
    """Half the smallest float64 lies between 0 and the smallest; what its float 0 lacks counts even where the slope makes it underflow."""
    x, zero = np.array([[0.0], [5e-324], [0.0], [5e-324]]), np.zeros(1)
    agree(x, x, [zero + 1, zero, zero, zero], eps=1e30, out_dtype="float32")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities(special, name, training):
    kind, rng = kind_of(name), np.random.default_rng(5)
    base = [rng.standard_normal((2, 3, 2, 2)).astype(kind) for _ in range(2)]
    for place in range(6):
        x, gy, stats = base[0].copy(), base[1].copy(), vectors(rng, 3, kind)
        target = [x, gy, *stats][place]
        target[(0, 1, 0, 0)[: target.ndim] if target.ndim > 1 else 1] = abs(special) if place == 5 else special
        gy[0, 1, 1, 1] = 0
        agree(x, gy, stats)


@pytest.mark.parametrize("place", [0, 1])
def test_a_nan_in_a_channel_needs_no_repair(place):
    """All of the channel is NaN in training, and known to be."""
    rng = np.random.default_rng(9)
    arrays, stats = [rng.standard_normal((4, 3, 9, 9)).astype(np.float32) for _ in range(2)], vectors(rng, 3, np.dtype(np.float32))
    arrays[place][0, 1, 0, 0] = np.nan
    assert agree(*arrays, stats) <= 2


@given(st.data())
@settings(max_examples=60)
def test_chosen_by_hypothesis(data):
    kind = np.dtype(data.draw(st.sampled_from([np.float16, np.float32, np.float64])))
    floats = st.floats(width=kind.itemsize * 8)
    shape = data.draw(st.tuples(st.integers(2, 3), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)))
    x, gy = (data.draw(arrays(kind, shape, elements=floats, fill=st.nothing())) for _ in range(2))
    stats = [data.draw(arrays(kind, shape[1], elements=floats)) for _ in range(4)]
    agree(x, gy, [*stats[:3], np.abs(stats[3])], eps=data.draw(st.sampled_from([1e-5, 0.25, 1.0])))


def test_certificates_of_a_large_batch():
    """Without `exact`: elements of a batch of 20 000, between the halfway points of their neighbours by integers."""
    rng = np.random.default_rng(6)
    x, kind = (rng.standard_normal((4, 2, 50, 50)) * 3 + 100).astype(np.float32), np.float32
    gamma, beta, mean, var = vectors(rng, 2, kind)
    y = batch_norm(x, gamma, beta, mean, var, training=True).value[0]
    for c in range(2):
        values = [Fraction(float(v)) for v in x[:, c].ravel()]
        m = sum(values) / len(values)
        v = sum((value - m) ** 2 for value in values) / len(values) + Fraction(1e-5)
        for at in rng.integers(0, len(values), 200):
            certify_root(y[:, c].ravel()[at], Fraction(float(beta[c])), (values[at] - m) * Fraction(float(gamma[c])), v)


def test_threads_and_layouts():
    rng = np.random.default_rng(7)
    for name in ("float16", "float32", "float64"):
        x, gy = (rng.standard_normal((4, 6, 30, 31)).astype(name) for _ in range(2))
        stats = vectors(rng, 6, np.dtype(name))
        want, grads = batch_norm(x, *stats, training=True).value, batch_norm_grad(gy, x, stats[0], *stats[2:], training=True).value
        threads = _threads.get_num_threads()
        try:
            for count in (1, 3):
                _threads.set_num_threads(count)
                for a, b in zip(batch_norm(x, *stats, training=True).value, want, strict=True):
                    assert_same_bits(a, b)
        finally:
            _threads.set_num_threads(threads)
        for (_, other), (_, other_gy) in zip(layouts(x), layouts(gy), strict=True):
            for a, b in zip(batch_norm(other, *stats, training=True).value, want, strict=True):
                assert_same_bits(a, b)
            for a, b in zip(batch_norm_grad(other_gy, other, stats[0], *stats[2:], training=True).value, grads, strict=True):
                assert_same_bits(a, b)


def test_empty():
    for shape in ((0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3)):
        one = np.ones(shape[1], np.float32)
        assert batch_norm(np.zeros(shape, np.float32), one, one, one, one).value.shape == shape
    x, none = np.zeros((2, 0, 3, 3)), np.zeros(0)
    assert [a.shape for a in batch_norm(x, none, none, none, none, training=True).value] == [(2, 0, 3, 3), (0,), (0,)]


def test_bad_input():
    x, one = np.ones((1, 2)), np.ones(2)
    with pytest.raises(ArgumentError, match="1 values per channel"):
        batch_norm(x, one, one, one, one, training=True)
    with pytest.raises(ArgumentError, match="`running_var` \\+ `eps`"):
        batch_norm(x, one, one, one, -one)
    with pytest.raises(ArgumentError, match="`momentum`"):
        batch_norm(np.ones((2, 2)), one, one, one, one, training=True, momentum=2.0)
    with pytest.raises(ShapeError):
        batch_norm(x, one, np.ones(3), one, one)
    with pytest.raises(ShapeError, match="`gy`"):
        batch_norm_grad(np.ones((2, 2)), x, one, one, one)
    for bad in (x.astype(int), x.astype(object)):
        with pytest.raises(DTypeError, match="`x` has dtype"):
            batch_norm(bad, one, one, one, one)
    with pytest.raises(DTypeError, match="out_dtype"):
        batch_norm(x, one, one, one, one, out_dtype="float8_e5m2" if pytest.importorskip("ml_dtypes") else None)


def planted(monkeypatch, where, name, fault):
    """Whether the comparison with `exact` catches a fault: on values with large means, and on the near ties of a batch of two."""
    monkeypatch.setattr(where, name, fault)
    rng = np.random.default_rng(8)
    x = (1000 + rng.standard_normal((40, 2, 2, 2))).astype(np.float64)
    with pytest.raises(AssertionError):
        agree(x, rng.standard_normal(x.shape), vectors(rng, 2, np.dtype(np.float64)), eps=0)


def test_sums_in_plain_arithmetic_are_caught(monkeypatch):
    def plain(a, b, shape):
        totals, products = (np.sum(v.reshape(shape), axis=(0, 2)) for v in (a, a * b))
        return [int(t * 2**52) << 1023 for t in totals], [int(p * 2**40) << 2110 for p in products], np.zeros(shape[1], int)

    planted(monkeypatch, kernels.exact_sums, "exact_sums", plain)


def test_a_wrong_count_is_caught(monkeypatch):
    planted(monkeypatch, _statistics, "at_least_two", lambda n: n + 1)


def test_a_bound_without_what_the_constants_lack_is_caught(monkeypatch):
    """The mean as one float, as if it were exact."""
    def careless(a, root=None, count=2):
        return [_affine_floats(a, root, 1)[0][0], *[0.0] * (count - 1)], 0.0

    _affine_floats = _affine.as_floats
    planted(monkeypatch, module, "as_floats", careless)


def test_a_repair_that_rounds_twice_is_caught(monkeypatch):
    """1 + half a spacing of float32 + 2^-80 goes up; by way of float64 it would be a tie, and go down."""
    def twice(rational, terms, form):
        first = np.array([round_sum(rational, terms, FORMATS["float64"])], np.uint64).view(np.float64)
        return int(first.astype(np.float32).view(np.uint32)[0])

    args = (np.array([[2.0**-80]], np.float32), [1], np.array([1 + 2.0**-24]), [0], [2])
    want = exact.batch_norm(*args, eps=0)
    got = batch_norm(*args, eps=0)
    assert got.repaired == 1
    assert_same_bits(got.value, want)
    monkeypatch.setattr(module, "round_sum", twice)
    with pytest.raises(AssertionError):
        assert_same_bits(batch_norm(*args, eps=0).value, want)


def test_one_ulp_in_one_element_is_caught(monkeypatch):
    settled = _affine.settled

    def off(*args):
        value, repaired = settled(*args)
        value[7] = np.nextafter(value[7], np.inf)
        return value, repaired

    planted(monkeypatch, _affine, "settled", off)
