"""Losses: fifty-digit truth, closed-form gradients, labels, and PyTorch as a witness."""

import math

import mpmath
import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ShapeError, ops
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_same_bits, assert_within, function_bound, relative_bound
from tests.truth import POINTS, assert_ulps, elementwise

DTYPES = [np.float32, np.float64]
LOGITS = np.array([[0, 0, 0, 0], [1, 2, 3, 4], [-5, 80, 3, -80], [1e4, 0, -1e4, 9999], [0, -30, -31, -40], [88, 88.5, 87, -2]], float)
LABELS = np.array([3, 0, 1, 0, 0, 2])


def true_log_softmax(rows):
    """log(exp(x_i)/sum) = -log(1 + sum over j != i of exp(x_j - x_i)), in fifty digits."""
    with mpmath.workdps(50):
        rows = [[mpmath.mpf(float(a)) for a in row] for row in rows]
        return np.array([[-mpmath.log1p(mpmath.fsum(mpmath.exp(b - a) for j, b in enumerate(row) if j != i)) for i, a in enumerate(row)]
                         for row in rows], object)


def ulps_of(rows):
    """n terms, each exp with the error d*u of its argument, d the second largest's distance plus log n; then log1p and the difference."""
    gaps = np.sort(rows)[:, -1] - np.sort(rows)[:, -2]
    return (rows.shape[1] + gaps + math.log(rows.shape[1]) + 8)[:, None] / 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_softmax_keeps_its_digits_for_certain_classes_too(dtype):
    x = LOGITS.astype(dtype)
    assert_ulps(ops.log_softmax(x), true_log_softmax(x), ulps_of(x))


def test_the_usual_formula_loses_them():
    x = LOGITS
    shifted = x - x.max(1, keepdims=True)
    with pytest.raises(AssertionError, match=r"at \(2, 1\)|at \(4, 0\)"):
        assert_ulps(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), true_log_softmax(x), ulps_of(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_is_a_distribution(dtype):
    p = ops.softmax(LOGITS.astype(dtype))
    assert p.dtype == dtype
    assert (p >= 0).all()
    assert_within(p.sum(1), np.ones(len(p)), relative_bound(4 * 4 + 8, 1.0, dtype))
    assert_same_bits(ops.softmax(LOGITS.T.astype(dtype), axis=0), np.ascontiguousarray(p.T))


def test_a_shift_of_all_logits_changes_nothing():
    assert_same_bits(ops.log_softmax(LOGITS[:3] + 1024), ops.log_softmax(LOGITS[:3]))  # the sums are exact


def test_log_softmax_of_special_values():
    x = np.array([[np.inf, 0], [np.nan, 0], [0, -np.inf], [-np.inf, -np.inf]])
    y = ops.log_softmax(x)
    assert np.isnan(y[[0, 1, 3]]).all()
    assert (y[2] == [0, -np.inf]).all()
    assert ops.log_softmax(np.zeros((3, 0))).shape == (3, 0)
    assert (ops.log_softmax(np.zeros((3, 1))) == 0).all()
    assert ops.log_softmax(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_and_its_gradient(dtype):
    """d/dx = softmax(x) - onehot(label)."""
    x = Tensor(LOGITS.astype(dtype))
    loss = ops.cross_entropy(x, LABELS)
    assert loss.shape == (6,)
    truth = -true_log_softmax(x.value)[np.arange(6), LABELS]
    assert_ulps(loss.value, truth, ulps_of(LOGITS)[:, 0])
    slope = np.exp(true_log_softmax(x.value).astype(float)) - np.eye(4)[LABELS]
    assert_within(grad(ops.sum(loss), x), slope, relative_bound(4 * 4 + 16, 1.0, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_slope_of_a_nearly_certain_class_keeps_its_digits(dtype):
    """d/dx = p - 1 = expm1(log p) at the label: of condition <= 1 in log p, an ulp of its own, a product by 1 and a sum with 0."""
    x = Tensor(LOGITS.astype(dtype))
    labels = x.value.argmax(1)
    slope = grad(ops.sum(ops.cross_entropy(x, labels)), x)[np.arange(6), labels]
    log_p = true_log_softmax(x.value)[np.arange(6), labels]
    assert_ulps(slope, elementwise(mpmath.expm1, log_p), ulps_of(x.value)[:, 0] + 1)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_ulps(np.exp(log_p.astype(dtype)) - 1, elementwise(mpmath.expm1, log_p), ulps_of(x.value)[:, 0] + 1)


def test_uniform_logits_cost_the_logarithm_of_the_number_of_classes():
    assert_ulps(ops.cross_entropy(np.zeros((2, 10)), np.array([0, 9])), elementwise(mpmath.log, np.full(2, 10.0)), 2)


def test_labels_may_have_any_integer_dtype():
    for dtype in (np.uint8, np.int32, np.int64):
        assert_same_bits(ops.cross_entropy(LOGITS, LABELS.astype(dtype)), ops.cross_entropy(LOGITS, LABELS))
    assert_same_bits(ops.cross_entropy(LOGITS, LABELS.tolist()), ops.cross_entropy(LOGITS, LABELS))
    assert ops.cross_entropy(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize("target", [0.0, 0.25, 0.999, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bce_with_logits_is_true_to_a_few_ulps(target, dtype):
    """1 - t and the product 1 each, exp and log1p 1 each, the sum of two non-negative terms 1/2: 4 ulps."""
    x, t = POINTS.astype(dtype), np.full(POINTS.shape, target, dtype)
    exact = elementwise(lambda x, t: t * mpmath.log1p(mpmath.exp(-x)) + (1 - t) * mpmath.log1p(mpmath.exp(x)), x, t)
    assert_ulps(ops.bce_with_logits(x, t), exact, 4)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_slope_of_a_nearly_certain_prediction_keeps_its_digits(target, dtype):
    """d/dx = sigmoid(x) - t, which is -sigmoid(-x) at t = 1."""
    x, t = Tensor(POINTS.astype(dtype)), np.full(POINTS.shape, target, dtype)
    slope = grad(ops.sum(ops.bce_with_logits(x, t)), x)
    sign = 1 - 2 * target
    assert_ulps(slope, elementwise(lambda x: sign / (1 + mpmath.exp(-sign * x)), x.value), 4)


def test_slopes_of_bce_with_soft_targets():
    x, t = Tensor(np.array([-1.5, 0.0, 2.0])), Tensor(np.array([0.25, 0.5, 0.75]))
    to_x, to_t = grad(ops.sum(ops.bce_with_logits(x, t)), [x, t])
    assert_within(to_x, 1 / (1 + np.exp(-x.value)) - t.value, function_bound(8, 1.0, np.float64))
    assert (to_t == -x.value).all()


def test_an_untrained_decoder_costs_784_ln_2():
    """543.43 nats for an MNIST image with all logits 0, whatever the image."""
    loss = ops.bce_with_logits(np.zeros(784), np.random.default_rng(0).random(784))
    assert_within(ops.sum(loss), np.array(784 * math.log(2)), relative_bound(784 + 4, 784.0, np.float64))


def test_non_finite_logits_are_not_masked():
    assert np.isnan(ops.bce_with_logits(np.array([np.nan]), np.ones(1))).all()
    assert (ops.bce_with_logits(np.array([np.inf, -np.inf]), np.array([0.0, 1.0])) == np.inf).all()
    assert np.isnan(ops.cross_entropy(np.array([[np.nan, 0.0]]), np.array([1]))).all()


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: ops.cross_entropy(LOGITS, LABELS + 1), ArgumentError, r"`labels` \(from 1 to 4\) must lie in \[0, 4\)"),
    (lambda: ops.cross_entropy(LOGITS, LABELS - 1), ArgumentError, r"`labels` \(from -1 to 2\)"),
    (lambda: ops.cross_entropy(LOGITS, LABELS.astype(float)), DTypeError, "`labels` has dtype float64, but must hold integers"),
    (lambda: ops.cross_entropy(LOGITS, LABELS == 0), DTypeError, "`labels` has dtype bool"),
    (lambda: ops.cross_entropy(LOGITS, LABELS[:5]), ShapeError, r"`labels` has shape \(5,\), but must have shape \(6,\)"),
    (lambda: ops.cross_entropy(LOGITS, np.eye(4, dtype=int)[LABELS]), ShapeError, "one label for each row"),
    (lambda: ops.cross_entropy(LOGITS[0], LABELS), ShapeError, r"`logits` has shape \(4,\), but must have 2 axes: \(batch, classes\)"),
    (lambda: ops.cross_entropy(LOGITS, Tensor(LABELS.astype(float))), TypeError, r"use its \.value"),
    (lambda: ops.log_softmax(LOGITS, 2), ArgumentError, r"`axis` \(=2\) must lie in \[-2, 2\)"),
    (lambda: ops.softmax(LOGITS, None), ArgumentError, r"`axis` \(=None\)"),
    (lambda: ops.log_softmax(LABELS), DTypeError, "`x` has dtype int64"),
    (lambda: ops.bce_with_logits(LOGITS, LOGITS[0]), ShapeError, r"`targets` has shape \(4,\), but must have shape \(6, 4\)"),
    (lambda: ops.bce_with_logits(LOGITS, LOGITS.astype(np.float32)), DTypeError, "same dtype"),
    (lambda: ops.bce_with_logits(LOGITS, LABELS), DTypeError, "`targets` has dtype int64"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_agrees(dtype):
    """Within the sum of both errors: at most n + d + log n + 8 < 48 roundings each, on terms that these logits keep below 32."""
    torch = pytest.importorskip("torch")
    rng, theirs = np.random.default_rng(0), torch.nn.functional
    x, t = (4 * rng.standard_normal((6, 4))).astype(dtype), rng.random((6, 4)).astype(dtype)
    bound = relative_bound(2 * 48, 32.0, dtype)
    for f, witness in (
        (lambda x: ops.cross_entropy(x, LABELS), lambda x: theirs.cross_entropy(x, torch.tensor(LABELS), reduction="none")),
        (lambda x: ops.bce_with_logits(x, t), lambda x: theirs.binary_cross_entropy_with_logits(x, torch.tensor(t), reduction="none")),
        (ops.log_softmax, lambda x: theirs.log_softmax(x, -1)),
    ):
        a, b = Tensor(x), torch.tensor(x, requires_grad=True)
        y, z = f(a), witness(b)
        g = rng.random(y.shape).astype(dtype)
        z.backward(torch.tensor(g))
        assert_within(y.value, z.detach().numpy(), bound)
        assert_within(grad(y, a, g), b.grad.numpy(), bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logsumexp_is_true_to_a_few_ulps(dtype):
    x = LOGITS.astype(dtype)
    with mpmath.workdps(50):
        exact = np.array([mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(float(a))) for a in row)) for row in x], object)
    assert_ulps(ops.logsumexp(x), exact, 6)
    assert_same_bits(ops.logsumexp(x.T, axis=0), ops.logsumexp(x))


def test_logsumexp_of_infinities_and_of_nothing():
    x = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 3.0], [np.nan, 1.0]])
    assert_same_bits(ops.logsumexp(x), np.array([-np.inf, np.inf, 3.0, np.nan]))
    assert ops.logsumexp(np.zeros((2, 0))).tolist() == [-np.inf, -np.inf]
    with pytest.raises(ArgumentError, match="`axis`"):
        ops.logsumexp(x, axis=2)


def test_logsumexp_slope_is_the_softmax():
    x = Tensor(LOGITS, "x")
    assert_within(grad(ops.sum(ops.logsumexp(x)), x), ops.softmax(LOGITS), function_bound(8 + ulps_of(LOGITS), 1.0, np.float64))
