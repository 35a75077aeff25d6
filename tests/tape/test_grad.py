from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, UnusedInputError, ops
from npreparam.ops._primitive import PRIMITIVES, gradient, primitive
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_same_bits, assert_within, function_bound

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


def test_all_unused_inputs_are_named_in_one_error():
    """A plain sample, and layers: every parameter of a network is called `weight` or `bias`, but its key is dotted."""
    mu, sigma = Tensor(np.zeros(3), "mu"), Tensor(np.ones(3), "sigma")
    z = Tensor(np.random.default_rng(0).normal(mu.value, sigma.value))
    with pytest.raises(UnusedInputError, match=r"depend on `mu` \(shape \(3,\)\), `sigma` \(shape \(3,\)\): no differentiable path"):
        grad(ops.sum(z), [mu, sigma])
    with pytest.raises(UnusedInputError, match="does not depend on `mu`, `sigma`"):
        grad(z.value.sum(), [mu, sigma])
    with pytest.raises(UnusedInputError, match=r"depend on `blocks\.1\.weight` \(shape \(3,\)\): "):
        grad(ops.sum(mu), {"blocks.0.weight": mu, "blocks.1.weight": Tensor(np.ones(3), "weight")})


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
    assert grad(z, {"a": y}.values()) == [2]
    assert grad(z, [x, x]) == [3, 3]
    assert grad(z, []) == []
    pair = namedtuple("pair", "mu sigma")
    assert grad(z, pair(x, y)) == pair(3, 2)
    assert isinstance(grad(z, pair(x, y)), pair)


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


def test_only_the_rules_on_the_way_to_an_input_are_evaluated():
    @primitive
    def dead_end(x):
        return x

    del PRIMITIVES["dead_end"]
    gradient(dead_end, "x", lambda g, y, a: pytest.fail("a rule that nobody needs"))
    x, y = Tensor(np.ones(2)), Tensor(np.ones(2))
    assert (grad(ops.sum(x * dead_end(y)), x) == 1).all()
    z = dead_end(y)
    assert (grad(ops.sum(x * z), z) == 1).all()


def test_results_are_new_arrays_that_share_no_memory():
    x, y, seed = Tensor(np.ones(3)), Tensor(np.ones(3)), np.ones(3)
    to_x, to_y = grad(x + y, [x, y], seed)
    to_x *= 5
    assert (to_y == 1).all()
    assert (seed == 1).all()
    spread = grad(ops.sum(x), x)
    spread += 1  # a broadcast view would be read-only
    z = ops.exp(x)
    into = grad(z, x, np.ones(3))
    into[:] = 0
    assert (z.value != 0).all()


def test_the_missing_cotangents_of_a_tuple_are_zeros():
    seen = []

    @primitive
    def halves(x):
        return x[:2], x[2:]

    del PRIMITIVES["halves"]
    gradient(halves, "x", lambda g, y, a: seen.append(g) or ops.concat([g[0], g[1]]))
    x = Tensor(np.arange(5.0))
    low, high = halves(x)
    assert (grad(ops.sum(high), x) == [0, 0, 1, 1, 1]).all()
    assert (seen[0][0] == 0).all()
    assert (grad(ops.sum(low * low) + ops.sum(high), x) == [0, 2, 1, 1, 1]).all()
    assert (grad(ops.sum(low * low) + ops.sum(high), [low, high])[1] == 1).all()
    with pytest.raises(UnusedInputError, match="number 0"):
        grad(ops.sum(high), [low])


def test_a_cotangent_may_be_a_tensor_and_is_differentiated_with_create_graph():
    x, g = Tensor(np.array([1.0, 2.0])), Tensor(np.array([3.0, 4.0]))
    assert (grad(x * x, x, g) == [6, 16]).all()
    pulled = grad(x * x, x, g, create_graph=True)
    assert (grad(pulled, g, np.ones(2)) == 2 * x.value).all()


def test_gradients_of_gradients_in_float32_stay_float32():
    x = Tensor(np.array([0.5, 2.0], np.float32))
    first = grad(ops.sum(ops.softplus(x) * 0.5), x, create_graph=True)
    assert first.dtype == np.float32
    assert grad(ops.sum(first), x).dtype == np.float32


@pytest.mark.parametrize(("f", "second"), [
    (ops.exp, np.exp), (ops.log, lambda x: -1 / x**2), (ops.sqrt, lambda x: -1 / (4 * x * np.sqrt(x))),
    (lambda x: 1.0 / x, lambda x: 2 / x**3),
    (ops.softplus, lambda x: 1 / (2 + np.exp(x) + np.exp(-x))), (ops.tanh, lambda x: -2 * np.tanh(x) / np.cosh(x) ** 2),
    (ops.square, lambda x: np.full(x.shape, 2.0)), (lambda x: ops.gaussian_kl(x, x), lambda x: 1 + np.exp(x) / 2),
])
def test_second_derivatives_in_closed_form(f, second):
    """Each side passes at most 16 operations of at most 4 ulps."""
    x = Tensor(np.array([0.25, 0.5, 1.0, 3.0]))
    first = grad(ops.sum(f(x)), x, create_graph=True)
    expected = second(x.value)
    assert_within(grad(ops.sum(first), x), expected, function_bound(2 * 16 * 4, expected, np.float64))


def test_the_gradient_of_a_gradient_penalty_is_pytorchs():
    """d/dw |d/dx sum(relu(x w)^2 v)|^2 on integers, with ==."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, shape).astype(float) for shape in ((5, 3), (3, 4), (4, 2))]
    x, w, v = (Tensor(a) for a in arrays)
    slope = grad(ops.sum(ops.square(ops.relu(x @ w)) @ v), x, create_graph=True)
    ours = grad(ops.sum(ops.square(slope)), [x, w, v])
    a, b, c = (torch.tensor(array, requires_grad=True) for array in arrays)
    (witness,) = torch.autograd.grad((torch.relu(a @ b).square() @ c).sum(), a, create_graph=True)
    theirs = torch.autograd.grad(witness.square().sum(), [a, b, c])
    assert (slope.value == witness.detach().numpy()).all()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.any()
        assert (mine == other.numpy()).all()


def test_a_long_chain_is_differentiated_twice_without_recursion():
    x = Tensor(np.array(1.0))
    y = x
    for _ in range(5_000):
        y = y * 1.0
    first = grad(y * y, x, create_graph=True)
    assert grad(first, x) == 2


def test_threads_do_not_see_each_other():
    def work(seed):
        x = Tensor(np.random.default_rng(seed).standard_normal(50))
        y = x
        for _ in range(200):
            y = ops.tanh(y + x)
        return grad(ops.sum(y), x)

    alone = [work(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for together, expected in zip(pool.map(work, range(8)), alone, strict=True):
            assert_same_bits(together, expected)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda x: grad(x, x), ArgumentError, r"`output` of shape \(3,\) is no scalar; sum it, or pass a `cotangent`"),
    (lambda x: grad(x * 2.0, x, np.ones(2)), ShapeError, r"`cotangent` has shape \(2,\)"),
    (lambda x: grad(x * 2.0, x, np.ones(3, np.float32)), DTypeError, "`cotangent` has dtype float32"),
    (lambda x: grad(x * 2.0, x, [1.0, 1.0, 1.0]), DTypeError, r"`cotangent` \(a list\) must be a NumPy array"),
    (lambda x: grad(ops.sum(x), x, 1.0), DTypeError, r"`cotangent` \(a float\)"),
    (lambda x: grad((x, x), x), ArgumentError, "`output` is a tuple, but must be one Tensor"),
    (lambda x: grad(ops.sum(x), np.ones(3)), ArgumentError, "`inputs` must be Tensors, but number 0 is a float64"),
    (lambda x: grad(ops.sum(x), {"w": x.value}), ArgumentError, "number 0 is a ndarray"),
    (lambda x: grad(ops.sum(x), 3.0), ArgumentError, r"`inputs` \(a float\) must be a Tensor, a sequence of Tensors, or a dict"),
])
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call(Tensor(np.ones(3)))


def test_a_rule_that_returns_the_wrong_shape_is_named():
    @primitive
    def halves(x):
        return x[: len(x) // 2]

    gradient(halves, "x", lambda g, y, a: g)
    del PRIMITIVES["halves"]
    x = Tensor(np.ones(4))
    with pytest.raises(ShapeError, match=r"gradient rule of `halves` for `x`: its result has shape \(2,\)"):
        grad(ops.sum(halves(x)), x)


def test_a_rule_that_returns_no_array_or_the_wrong_dtype_is_named():
    for result, message in ((None, "is a NoneType"), (np.ones(4, np.float32), "has dtype float32")):
        @primitive
        def same(x):
            return x

        del PRIMITIVES["same"]
        gradient(same, "x", lambda g, y, a, result=result: result)
        x = Tensor(np.ones(4))
        with pytest.raises(DTypeError, match=f"gradient rule of `same` for `x`: its result {message}"):
            grad(ops.sum(same(x)), x)


@pytest.mark.parametrize(("result", "has"), [((np.ones(4),), "1 of them"), (np.ones(4), "a ndarray"), ([np.ones(4)] * 3, "3 of them")])
def test_a_rule_with_too_few_or_too_many_cotangents_is_named(result, has):
    """For a row of two arguments, and for the arrays of a *arrays parameter."""
    @primitive
    def first(x, y):
        return x

    @primitive
    def head(*arrays):
        return arrays[0]

    for f, names in ((first, ("x", "y")), (head, "arrays")):
        del PRIMITIVES[f.primitive.name]
        gradient(f, names, lambda g, y, a: result)
        x, y = Tensor(np.ones(4)), Tensor(np.ones(4))
        with pytest.raises(ShapeError, match=f"rule of `{f.primitive.name}` for .*: its result is {has}, but must be 2 cotangents"):
            grad(ops.sum(f(x, y)), [x, y])


def test_rows_are_registered_once_and_for_arguments_that_exist():
    for name in ("x", "nonsense"):
        with pytest.raises(ValueError, match="unknown or given twice"):
            gradient(ops.relu, name, lambda g, y, a: g)
