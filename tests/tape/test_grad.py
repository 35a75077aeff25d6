import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, UnusedInputError, ops
from npreparam.ops._primitive import gradient, primitive
from npreparam.tape import Tensor, check_grads, grad, jvp, value_and_grad, vjp
from tests.tolerances import assert_same_bits

numbers = st.floats(-100, 100, width=32)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8), st.sampled_from([np.float32, np.float64]))
def test_gradients_flow_through_mu_and_sigma_as_the_closed_form_says(rows, dtype):
    """dz/dmu = 1 and dz/dsigma = eps, with ==."""
    mu, sigma, eps = np.array(rows, dtype).T
    mu, sigma = Tensor(mu, "mu"), Tensor(sigma, "sigma")
    z = ops.normal_rsample(mu, sigma, eps)
    to_mu, to_sigma = grad(ops.sum(z), [mu, sigma])
    assert_same_bits(to_mu, np.ones_like(eps))
    assert (to_sigma == eps).all()


def test_gradients_do_not_flow_through_a_plain_sample():
    mu, sigma = Tensor(np.zeros(3), "mu"), Tensor(np.ones(3), "sigma")
    z = Tensor(np.random.default_rng(0).normal(mu.value, sigma.value))
    for name, parameter in (("mu", mu), ("sigma", sigma)):
        with pytest.raises(UnusedInputError, match=f"does not depend on `{name}`"):
            grad(ops.sum(z), parameter)


def test_a_detached_parameter_is_caught_although_the_rest_flows():
    """The planted fault: sigma detached by mistake; mu still gets its gradient, sigma is named."""
    mu, sigma = Tensor(np.zeros(3), "mu"), Tensor(np.ones(3), "sigma")
    z = ops.normal_rsample(mu, sigma.detach(), np.ones(3))
    grad(ops.sum(z), mu)
    with pytest.raises(UnusedInputError, match="`sigma`"):
        grad(ops.sum(z), {"mu": mu, "sigma": sigma})


def test_unused_inputs_without_a_name_are_numbered_and_zeros_on_request():
    x, y = Tensor(np.ones(2)), Tensor(np.ones(3, np.float32))
    with pytest.raises(UnusedInputError, match=r"number 1 of `inputs` \(shape \(3,\)\)"):
        grad(ops.sum(x), [x, y])
    assert_same_bits(grad(ops.sum(x), [x, y], allow_unused=True)[1], np.zeros(3, np.float32))
    with pytest.raises(UnusedInputError, match="not computed from any Tensor"):
        grad(np.float64(1), x)


def test_the_result_has_the_structure_of_the_inputs():
    x, y = Tensor(np.array(2.0)), Tensor(np.array(3.0))
    z = x * y
    assert grad(z, x) == 3
    assert grad(z, [x, y]) == [3, 2]
    assert grad(z, (x, y)) == (3, 2)
    assert grad(z, {"a": y}) == {"a": 2}


def test_gradients_add_up_where_paths_meet_and_leave_nothing_behind():
    x = Tensor(np.array(3.0))
    y = x * x
    z = y + y * x
    assert grad(z, x) == 6 + 27
    assert grad(z, x) == 6 + 27  # no stale gradient
    assert grad(z, y) == 1 + 3  # an intermediate result
    assert grad(z, [y, x]) == [4, 33]


def test_a_chain_of_200000_nodes_needs_no_recursion_to_walk_or_to_free():
    x = Tensor(np.array(1.0))
    y = x
    for _ in range(200_000):
        y = -y
    assert grad(y, x) == 1
    del y


def test_double_backward():
    x = Tensor(np.array([0.5, -2.0]))
    first = grad(ops.sum(x * x * x), x, create_graph=True)
    assert (first.value == 3 * x.value**2).all()
    second = grad(ops.sum(first), x, create_graph=True)
    assert (second.value == 6 * x.value).all()
    assert (grad(ops.sum(second), x) == 6).all()


def test_jvp_and_vjp_are_adjoint():
    rng = np.random.default_rng(0)
    x, t, g = rng.integers(-3, 4, (3, 2, 4, 4)).astype(float)[:, None]
    w = rng.integers(-3, 4, (3, 2, 3, 3)).astype(float)

    def f(x):
        return ops.square(ops.conv2d(x, w))

    y, dy = jvp(f, [x], [t])
    again, pullback = vjp(f, x)
    g = rng.integers(-3, 4, y.shape).astype(float)
    assert (y == again).all()
    assert np.sum(g * dy) == np.sum(pullback(g)[0] * t)


def test_value_and_grad_of_several_arguments():
    value, (dx, dy) = value_and_grad(lambda x, y: x * x * y, argnums=(0, 1))(np.array(3.0), np.array(2.0))
    assert (value, dx, dy) == (18, 12, 9)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda x: grad(x, x), ArgumentError, r"`output` of shape \(3,\) is no scalar; sum it, or pass a `cotangent`"),
    (lambda x: grad(x * 2.0, x, np.ones(2)), ShapeError, r"`cotangent` has shape \(2,\)"),
    (lambda x: grad(x * 2.0, x, np.ones(3, np.float32)), DTypeError, "`cotangent` has dtype float32"),
    (lambda x: grad(ops.sum(x), np.ones(3)), ArgumentError, "`inputs` must be Tensors, but number 0 is a float64"),
    (lambda x: np.asarray(x), TypeError, r"use its \.value"),
    (lambda x: Tensor(x), ArgumentError, "already"),
    (lambda x: Tensor([1.0]), DTypeError, r"`value` \(a list\)"),
    (lambda x: ops.bce_with_logits(x, x.detach().value.astype(np.float32)), DTypeError, "same dtype"),
    (lambda x: ops.cross_entropy(ops.reshape(x, (1, 3)), Tensor(np.array([1.0]))), (DTypeError, TypeError), r"labels|\.value"),
])
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call(Tensor(np.ones(3)))


def test_a_tensor_for_an_argument_without_gradient_is_refused():
    x = Tensor(np.ones((1, 1, 2, 2)))
    with pytest.raises(ArgumentError, match=r"`x` of `max_pool2d_grad` is not differentiable; pass an array \(the tensor's .value\)"):
        from npreparam.ops.pool import max_pool2d_grad
        max_pool2d_grad(np.ones((1, 1, 1, 1)), x, 2)


def test_numpy_arrays_on_the_left_come_to_the_tensor():
    x = Tensor(np.ones(2))
    for y in (np.ones(2) + x, np.ones(2) - x, np.ones(2) * x, np.ones(2) / x, np.float64(2) * x, 2 * x, np.ones((2, 2)) @ ops.reshape(x, (2, 1))):
        assert isinstance(y, Tensor)


def planted(slope_error, curvature_error):
    """sin with gradient rules that are wrong by a factor at first or at second order."""
    @primitive
    def wave(x):
        return np.sin(x)

    @primitive
    def wave_slope(x):
        return np.cos(x)

    gradient(wave, "x", lambda g, y, a: ops.mul(g, ops.mul(wave_slope(a.x), 1 + slope_error)))
    gradient(wave_slope, "x", lambda g, y, a: ops.mul(g, ops.mul(wave(a.x), -(1 + curvature_error))))
    return wave


@pytest.fixture
def _forget_planted():
    from npreparam.ops._primitive import PRIMITIVES
    yield
    for name in ("wave", "wave_slope"):
        PRIMITIVES.pop(name, None)


@pytest.mark.usefixtures("_forget_planted")
@pytest.mark.parametrize("seed", range(5))
def test_check_grads_catches_a_rule_that_is_wrong_by_a_twentieth_of_a_percent(seed):
    x = [np.random.default_rng(seed).standard_normal(4)]
    check_grads(planted(0, 0), x, rng=seed)
    with pytest.raises(AssertionError, match=r"order 1, argument 0: .* error = .*; permitted error = "):
        check_grads(planted(0.0005, 0), x, rng=seed)
    with pytest.raises(AssertionError, match="order 2, argument 0"):
        check_grads(planted(0, 0.0005), x, rng=seed)


def test_check_grads_catches_a_function_that_cuts_the_tape():
    with pytest.raises(AssertionError, match="argument 0"):
        check_grads(lambda x: x.detach() * 2.0 + x * 0.0, [np.ones(3)])


def test_a_rule_that_returns_the_wrong_shape_is_named():
    @primitive
    def halves(x):
        return x[: len(x) // 2]

    gradient(halves, "x", lambda g, y, a: g)
    from npreparam.ops._primitive import PRIMITIVES
    del PRIMITIVES["halves"]
    x = Tensor(np.ones(4))
    with pytest.raises(ShapeError, match=r"gradient rule of `halves` for `x`: its result has shape \(2,\)"):
        grad(ops.sum(halves(x)), x)


def test_rows_are_registered_once_and_for_arguments_that_exist():
    for name in ("x", "nonsense"):
        with pytest.raises(ValueError, match="unknown or given twice"):
            gradient(ops.relu, name, lambda g, y, a: g)
