import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ShapeError, UnusedInputError, ops
from npreparam.tape import Tensor, jvp, value_and_grad, vjp


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


def test_jvp_of_several_arguments_is_the_total_derivative():
    x, y = np.array([2.0, 3.0]), np.array([5.0, 7.0])
    dx, dy = np.array([1.0, -1.0]), np.array([0.5, 2.0])
    z, dz = jvp(lambda x, y: x * y + x, [x, y], [dx, dy])
    assert (z == x * y + x).all()
    assert (dz == dx * y + x * dy + dx).all()


def test_jvp_along_unit_vectors_gives_the_columns_of_the_jacobian_and_vjp_its_rows():
    a = np.arange(6.0).reshape(2, 3)

    def f(x):
        return ops.reshape(ops.matmul(a, ops.reshape(x * x, (3, 1))), (2,))

    x = np.array([1.0, 2.0, 3.0])
    jacobian = a * (2 * x)
    assert (np.stack([jvp(f, [x], [e])[1] for e in np.eye(3)], 1) == jacobian).all()
    assert (np.stack([vjp(f, x)[1](e)[0] for e in np.eye(2)]) == jacobian).all()


def test_an_argument_without_influence_has_zeros():
    _, pullback = vjp(lambda x, y: x * 2.0, np.ones(2), np.ones(3))
    to_x, to_y = pullback(np.ones(2))
    assert (to_x == 2).all()
    assert (to_y == np.zeros(3)).all()
    assert (jvp(lambda x, y: x * 2.0, [np.ones(2), np.ones(3)], [np.ones(2), np.ones(3)])[1] == 2).all()


def test_a_pullback_may_be_used_again():
    _, pullback = vjp(lambda x: x * x, np.array([3.0]))
    assert [pullback(np.array([g]))[0][0] for g in (1.0, 2.0, 1.0)] == [6, 12, 6]


def test_value_and_grad_passes_other_arguments_on():
    f = value_and_grad(lambda x, scale, shift=0.0: ops.sum(x * scale + shift), argnums=0)
    value, slope = f(np.ones(2), 3.0, shift=1.0)
    assert value == 8
    assert (slope == 3).all()
    assert value_and_grad(lambda x, y: x * y, argnums=-1)(np.array(2.0), np.array(5.0))[1] == 2


@pytest.mark.parametrize("call", [
    lambda f, x: value_and_grad(f)(x), lambda f, x: vjp(f, x), lambda f, x: jvp(f, [x], [np.array(1.0)]),
])
def test_an_outer_gradient_is_not_cut_in_silence(call):
    """x*g(x) would lose the part of its slope that comes through g."""
    with pytest.raises(ArgumentError, match=r"argument 0 is a Tensor, whose history would end here; .*create_graph=True"):
        call(lambda t: t * t, Tensor(np.array(3.0), "x"))


@pytest.mark.parametrize("call", [
    lambda f: value_and_grad(f)(np.ones(2)), lambda f: vjp(f, np.ones(2)), lambda f: jvp(f, [np.ones(2)], [np.ones(2)]),
])
def test_what_f_returns_must_be_one_tensor(call):
    with pytest.raises(UnusedInputError, match=r"the value of `f` \(a ndarray\) was not computed from .* depend on `argument 0`"):
        call(lambda x: x.value * 2)
    with pytest.raises(ArgumentError, match="the value of `f` is a tuple, but must be one Tensor"):
        call(lambda x: (x, x))


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: jvp(ops.exp, [np.ones(2)], []), ArgumentError, r"`tangents` \(=0 of them\) must be as many as `primals` \(=1\)"),
    (lambda: jvp(ops.exp, [np.ones(2)], [np.ones(3)]), ShapeError, r"`tangents\[0\]` has shape \(3,\), but must have shape \(2,\)"),
    (lambda: jvp(ops.exp, [np.ones(2)], [np.ones(2, np.float32)]), DTypeError, r"`tangents\[0\]` has dtype float32"),
    (lambda: jvp(ops.exp, [np.ones(2)], [[1.0, 1.0]]), DTypeError, r"`tangents\[0\]` \(a list\)"),
    (lambda: vjp(ops.exp, [1.0]), DTypeError, r"`argument 0` \(a list\)"),
    (lambda: value_and_grad(ops.exp, argnums=1)(np.ones(())), ArgumentError, r"`argnums` \(=1\) must lie in \[-1, 1\)"),
    (lambda: value_and_grad(ops.exp, argnums=0.0)(np.ones(())), ArgumentError, r"`argnums` \(=0.0\) must be an integer"),
    (lambda: vjp(ops.exp, np.ones(2))[1](np.ones(3)), ShapeError, r"`cotangent` has shape \(3,\)"),
    (lambda: value_and_grad(ops.exp)(np.ones(2)), ArgumentError, "is no scalar"),
    (lambda: value_and_grad(lambda x, y: ops.sum(x), argnums=(0, 1))(np.ones(2), np.ones(2)), UnusedInputError, "`argument 1`"),
])
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
