import copy
import math

import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ops
from npreparam.ops.pool import max_pool2d_grad
from npreparam.tape import Tensor, grad


def test_a_tensor_tells_what_it_holds():
    x = Tensor(np.array([[1, 2]], np.float32), name="x")
    assert (x.shape, x.dtype, x.ndim, x.size, len(x), x.name) == ((1, 2), np.float32, 2, 2, 1, "x")
    assert repr(x) == "Tensor(array([[1., 2.]], dtype=float32), name='x')"
    assert repr(Tensor(np.array(2.0))) == "Tensor(array(2.))"


def test_operators_are_the_ops():
    x, y = Tensor(np.array([6.0, 9.0])), Tensor(np.array([2.0, 3.0]))
    for result, expected in ((x + y, [8, 12]), (x - y, [4, 6]), (x * y, [12, 27]), (x / y, [3, 3]), (-x, [-6, -9]), (1 + x, [7, 10]),
                             (1 - x, [-5, -8]), (2 * x, [12, 18]), (18 / x, [3, 2]), (x[1:], [9])):
        assert isinstance(result, Tensor)
        assert (result.value == expected).all()
    assert [float(part.value) for part in x] == [6, 9]


def test_numpy_on_the_left_comes_to_the_tensor():
    x = Tensor(np.ones(2))
    matrix = np.ones((2, 2)) @ ops.reshape(x, (2, 1))
    for y in (np.ones(2) + x, np.ones(2) - x, np.ones(2) * x, np.ones(2) / x, np.float64(2) * x, 2 * x, matrix):
        assert isinstance(y, Tensor)
    assert (grad(ops.sum(np.full(2, 3.0) * x), x) == 3).all()


def test_a_detached_tensor_is_a_leaf_with_the_same_value():
    x = Tensor(np.array([1.0, 2.0]), name="x")
    y = (x * x).detach()
    assert (y.value == [1, 4]).all()
    assert (grad(ops.sum(x * y), x) == [1, 4]).all()
    assert x.detach().name == "x"


@pytest.mark.parametrize("call", [float, math.exp, np.float64])
def test_a_scalar_does_not_become_a_number_in_silence(call):
    with pytest.raises(TypeError, match=r"use its \.value"):
        call(Tensor(np.array(1.0)))


@pytest.mark.parametrize("call", [np.asarray, np.sum, np.exp, lambda x: np.array([x]), lambda x: np.add(np.ones(2), x)])
def test_numpy_functions_refuse_instead_of_cutting_the_tape(call):
    with pytest.raises(TypeError):
        call(Tensor(np.ones(2)))


def test_a_tensor_for_an_argument_without_gradient_is_refused():
    with pytest.raises(ArgumentError, match=r"`x` of `max_pool2d_grad` is not differentiable; pass an array \(the tensor's .value\)"):
        max_pool2d_grad(np.ones((1, 1, 1, 1)), Tensor(np.ones((1, 1, 2, 2))), 2)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda x: np.asarray(x), TypeError, r"a Tensor is not converted to an array or a number silently.*use its \.value"),
    (lambda x: Tensor(x), ArgumentError, r"`value` is a Tensor already; use its \.detach\(\)"),
    (lambda x: Tensor([1.0]), DTypeError, r"`value` \(a list\)"),
    (lambda x: Tensor(1.0), DTypeError, r"`value` \(a float\)"),
    (lambda x: Tensor(np.arange(3)), DTypeError, "`value` has dtype int64"),
    (lambda x: x + np.ones(3, np.float32), DTypeError, "same dtype"),
    (lambda x: x + "1", DTypeError, r"`y` \(a str\)"),
    (lambda x: x[[0, 1]], ArgumentError, "must be basic"),
    (lambda x: x[3], ArgumentError, "does not fit"),
    (lambda x: x**2, TypeError, "unsupported operand"),
    (lambda x: x < 1, TypeError, "not supported"),
    (lambda x: x.__setitem__(0, 1.0), AttributeError, "__setitem__"),
    (lambda x: setattr(x, "value", np.ones(3)), AttributeError, "value"),
    (lambda x: bool(x), TypeError, r"use its \.value"),
    (lambda x: ops.exp(x, x), TypeError, "too many positional arguments"),
])
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call(Tensor(np.ones(3)))


def test_a_deep_copy_is_a_leaf_of_its_own():
    x = Tensor(np.array(2.0), "x")
    y = copy.deepcopy(x)
    assert grad(x * x + y * 5.0, [x, y]) == [4, 5]
