"""Certified losses and sampling against `exact`, bit by bit; the bounds against mpmath; faults planted."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from npreparam.certified import _wide, loss, sampling
from npreparam.certified._wide import Wide
from npreparam.certified.loss import bce_with_logits, cross_entropy, log_softmax
from npreparam.certified.sampling import gaussian_kl, normal_log_prob, normal_rsample
from tests.certified.test_batch_norm import any_bits, kind_of
from tests.exact.certificate import certify, real
from tests.exact.certificate import softplus as real_softplus
from tests.layouts import layouts
from tests.tolerances import assert_same_bits

NAMES = ["float16", "bfloat16", "float32", "float64"]
HAS_WIDER = np.finfo(np.longdouble).nmant in (63, 112)
BINARY = [(bce_with_logits, exact.bce_with_logits), (gaussian_kl, exact.gaussian_kl)]
TERNARY = [(normal_rsample, exact.normal_rsample), (normal_log_prob, exact.normal_log_prob)]


def same(got, want):
    assert_same_bits(got.value, want)
    return got.repaired


def agree(x, y, sigma, out_dtype="same"):
    """All of them on arrays of one shape; the number of repairs."""
    repaired = [same(f(x, y, out_dtype=out_dtype), g(x, y, out_dtype=out_dtype)) for f, g in BINARY]
    repaired += [same(f(*a, out_dtype=out_dtype), g(*a, out_dtype=out_dtype))
                 for (f, g), a in zip(TERNARY, ((x, sigma, y), (x, y, sigma)), strict=True)]
    if x.ndim == 2:
        for axis in (0, 1):
            repaired.append(same(log_softmax(x, axis, out_dtype), exact.log_softmax(x, axis, out_dtype)))
        labels = np.arange(len(x)) % x.shape[1]
        repaired.append(same(cross_entropy(x, labels, out_dtype), exact.cross_entropy(x, labels, out_dtype)))
    return sum(repaired)


@pytest.mark.parametrize("scale", [1e-3, 1, 30])
@pytest.mark.parametrize("name", NAMES)
def test_at_random(name, scale):
    kind, rng = kind_of(name), np.random.default_rng(0)
    x, y, sigma = ((rng.standard_normal((12, 7)) * scale).astype(kind) for _ in range(3))
    assert agree(x, y, np.abs(sigma)) <= (30 if HAS_WIDER or name != "float64" else 7 * 84)
    for out in ("float16", "float32", "float64"):
        agree(x[:3], y[:3], np.abs(sigma[:3]), out)


@pytest.mark.parametrize("name", NAMES)
def test_any_finite_bits(name):
    """Huge and tiny arguments, whose results overflow or underflow; the logits of one row far apart."""
    kind, rng = kind_of(name), np.random.default_rng(1)
    x, y, sigma = (any_bits(rng, (12, 4), kind) for _ in range(3))
    with np.errstate(invalid="ignore"):  # ml_dtypes, of a signalling NaN
        x, y, sigma = (np.where(np.isfinite(v), v, np.ones_like(v)) for v in (x, y, sigma))
        sigma = np.where(sigma == 0, np.ones_like(sigma), np.abs(sigma))
    agree(x, y, sigma)
    agree(x, y, sigma, "float16")


@pytest.mark.parametrize("name", NAMES)
def test_where_terms_cancel_or_vanish(name):
    """Zeros and whole numbers, ties, the two largest logits far above the rest, and targets that make a loss of almost 0."""
    kind = kind_of(name)
    values = np.array([0, 1, -1, 2, 0.5, 80, -80, 700, -700, -1100, 1e-3, -1e-6]).astype(kind)
    x, y = (v.astype(kind) for v in np.meshgrid(values, values))
    agree(x, y, np.ones_like(x))
    agree(x, y, np.full_like(x, 0.25))
    zero = np.zeros((2, 3), kind)
    for negative in (-600, -900, -1200):
        same(bce_with_logits(zero + kind.type(negative), zero), exact.bce_with_logits(zero + kind.type(negative), zero))


@given(st.data())
@settings(max_examples=50)
def test_chosen_by_hypothesis(data):
    kind = np.dtype(data.draw(st.sampled_from([np.float16, np.float32, np.float64])))
    floats = st.floats(width=kind.itemsize * 8, allow_nan=False, allow_infinity=False)
    x, y, sigma = (data.draw(arrays(kind, (2, 3), elements=floats)) for _ in range(3))
    agree(x, y, np.where(sigma == 0, np.ones_like(sigma), np.abs(sigma)))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_many_classes_by_certificate(kind):
    """A thousand classes, and without `exact`: mpmath between the halfway points."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((3, 1000)) * 3).astype(kind)
    labels = rng.integers(0, 1000, 3)
    value, repaired = cross_entropy(x, labels)
    assert repaired <= (0 if kind == np.float32 else 3)
    with mpmath.workprec(300):
        for row, label, y in zip(x, labels, value, strict=True):
            certify(y, mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(float(v))) for v in row)) - mpmath.mpf(float(row[label])))
    x, t = rng.standard_normal((2, 200)).astype(kind)
    for a, b, y in zip(x, t, bce_with_logits(x, t).value, strict=True):
        certify(y, real(lambda v, w: real_softplus(v) - v * w, a, b))


def bounds_seen(monkeypatch):
    """What `Wide.rounded` is called with: (candidate, units, unit) as they come."""
    seen, rounded = [], Wide.rounded

    def spy(self, y, units, *rest):
        seen.append((y, units, self.unit))
        return rounded(self, y, units, *rest)

    monkeypatch.setattr(Wide, "rounded", spy)
    return seen


def test_the_units_are_enough(monkeypatch):
    """The error of every candidate, by mpmath, is within its units: of u = 2^-53 here."""
    seen, rng = bounds_seen(monkeypatch), np.random.default_rng(3)
    x, y, sigma = (rng.standard_normal((3, 300)) * [[3], [1], [1]]).astype(np.float32)
    x[:100] *= np.float32(1e-2)
    sigma = np.abs(sigma)
    bce_with_logits(x, y), gaussian_kl(y, x), normal_rsample(x, sigma, y), normal_log_prob(x, y, sigma)
    log_softmax(x.reshape(30, 10))
    p, q, s = ([mpmath.mpf(float(v)) for v in a] for a in (x, y, sigma))
    with mpmath.workprec(200):
        log_sums = [mpmath.log(mpmath.fsum(map(mpmath.exp, p[i : i + 10]))) for i in range(0, 300, 10)]
        wanted = [[real_softplus(a) - a * b for a, b in zip(p, q, strict=True)],
                  [(mpmath.exp(a) - 1 - a + b * b) / 2 for a, b in zip(p, q, strict=True)],
                  [a + c * b for a, b, c in zip(p, q, s, strict=True)],
                  [-((a - b) / c) ** 2 / 2 - mpmath.log(2 * mpmath.pi * c * c) / 2 for a, b, c in zip(p, q, s, strict=True)],
                  [log_sums[i // 10] - a for i, a in enumerate(p)]]
        for (candidate, units, unit), want in zip(seen, wanted, strict=True):
            for value, bound, exactly in zip(candidate.ravel().tolist(), units.ravel().tolist(), want, strict=True):
                assert abs(mpmath.mpf(value) - exactly) <= bound * unit + mpmath.mpf(2) ** -800


def test_layouts_shapes_and_broadcasting():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    want = log_softmax(x, 1).value
    for _, other in layouts(x):
        same(log_softmax(other, 1), want)
        same(bce_with_logits(other, x), bce_with_logits(x, x).value)
    mu, scale = x[0, 0], np.abs(x[0, 0, 0])
    same(normal_rsample(mu, scale, mu), exact.normal_rsample(mu, scale, mu))
    same(normal_log_prob(mu, np.float32(0), scale), exact.normal_log_prob(mu, np.float32(0), scale))
    same(gaussian_kl(mu, mu[:1]), exact.gaussian_kl(mu, mu[:1]))
    same(gaussian_kl(mu, mu[:1].astype(np.float64)), exact.gaussian_kl(mu, mu[:1].astype(np.float64)))
    for shape in ((0, 3), (3, 0), (2, 1)):
        same(log_softmax(np.zeros(shape, np.float32)), exact.log_softmax(np.zeros(shape, np.float32)))
    same(cross_entropy(np.ones((2, 1)), np.zeros(2, int)), exact.cross_entropy(np.ones((2, 1)), np.zeros(2, int)))
    assert bce_with_logits(np.zeros((0, 2)), np.zeros((0, 2))).value.shape == (0, 2)
    assert gaussian_kl(np.float64(1), np.float64(0)).value.shape == ()


def test_without_a_wider_format_everything_is_repaired(monkeypatch):
    monkeypatch.setitem(_wide.WIDER, "float64", np.float64)
    x, y = np.random.default_rng(5).standard_normal((2, 4, 5))
    assert agree(x, y, np.abs(y)) == 7 * 20 - 16  # cross_entropy has but 4 elements
    assert agree(*(v.astype(np.float32) for v in (x, y, np.abs(y)))) == 0


def test_bad_input():
    x = np.zeros((2, 3))
    with pytest.raises(ArgumentError, match="`x` holds NaN"):
        log_softmax(np.array([np.nan]))
    with pytest.raises(ArgumentError, match="`axis`"):
        log_softmax(x, 2)
    with pytest.raises(ArgumentError, match="`labels`"):
        cross_entropy(x, np.array([0, 3]))
    with pytest.raises(DTypeError, match="`labels`"):
        cross_entropy(x, np.zeros(2))
    with pytest.raises(ShapeError, match="`targets`"):
        bce_with_logits(x, x[:1])
    with pytest.raises(ShapeError, match="`eps`"):
        normal_rsample(x, x, x[:1])
    with pytest.raises(ShapeError, match="do not broadcast"):
        gaussian_kl(x, np.zeros(2))
    with pytest.raises(ArgumentError, match=r"`sigma` \(=0.0\)"):
        normal_log_prob(x, x, x)
    with pytest.raises(DTypeError, match="`logits` has dtype"):
        bce_with_logits(x.astype(int), x)


@pytest.mark.parametrize("fault", ["a function worse than assumed", "no bound", "one ulp"])
def test_faults_are_caught(monkeypatch, fault):
    x, y = np.random.default_rng(6).standard_normal((2, 3000))
    rounded, settled = Wide.rounded, _wide.settled
    if fault == "a function worse than assumed":
        monkeypatch.setattr(loss, "wide_softplus", lambda v: np.log1p(np.exp(v.astype(np.float64))).astype(v.dtype))
    elif fault == "no bound":
        monkeypatch.setattr(Wide, "rounded", lambda self, value, units, *rest: rounded(without_unit(self), value, units, *rest))
    else:
        monkeypatch.setattr(_wide, "settled", lambda *args: (np.nextafter(settled(*args)[0], 9), 0))
    with pytest.raises(AssertionError):
        same(bce_with_logits(x, y), exact.bce_with_logits(x, y))


def without_unit(wide):
    wide.unit = wide.type(0)
    return wide


def test_a_repair_that_rounds_twice_is_caught(monkeypatch):
    """A tie of float32 and 2^-70, which goes up; by way of float64 it would go down, to even."""
    args, kind = (np.array([1 + 2.0**-24]), np.array([2.0**-70]), np.array([1.0])), np.float32
    assert same(normal_rsample(*args, out_dtype=kind), exact.normal_rsample(*args, out_dtype=kind)) == 1
    monkeypatch.setattr(sampling, "round_to_bits", lambda value, form: int(np.float32(float(value)).view(np.uint32)))
    with pytest.raises(AssertionError):
        same(normal_rsample(*args, out_dtype=kind), exact.normal_rsample(*args, out_dtype=kind))
