"""Optimizers against closed forms in exact arithmetic, loop twins, and PyTorch."""

import numpy as np
import pytest

from npreparam import ArgumentError
from npreparam.nn import SGD, Adagrad, Adam
from tests.nn.test_adaptive import STEPS, adagrad_bound, adagrad_twin, adam_bound, adam_twin, gradients, layer, run
from tests.tolerances import assert_same_bits, assert_within, relative_bound, unit


def test_plain_gradient_descent_in_numbers_that_do_not_round():
    module = layer()
    module.update({"weight": np.ones((2, 3)), "bias": np.array([4.0, 8.0])})
    SGD(module, 0.25).step({"weight": np.full((2, 3), 2.0), "bias": np.array([-4.0, 0.0])})
    assert (module.weight.value == 0.5).all()
    assert module.bias.value.tolist() == [5.0, 8.0]


def test_momentum_and_decay_in_numbers_that_do_not_round():
    module = layer()
    module.update({"weight": np.full((2, 3), 8.0)})
    optimizer, g = SGD(module, 0.5, momentum=0.5, decay=0.25), {"weight": np.full((2, 3), 2.0)}
    expected = []
    p, v = 8.0, 0.0
    for _ in range(3):
        v = 0.5 * v + 2.0 + 0.25 * p
        p -= 0.5 * v
        expected.append(p)
    assert expected == [6.0, 3.25, 0.46875]
    for value in expected:
        optimizer.step(g)
        assert (module.weight.value == value).all()


def test_momentum_on_a_constant_gradient_is_the_geometric_sum():
    module, momentum = layer(), 0.5
    module.update({"weight": np.zeros((2, 3))})
    run(module, SGD(module, 1.0, momentum), [{"weight": np.ones((2, 3))}] * STEPS)
    closed = -(STEPS - momentum * (1 - momentum**STEPS) / (1 - momentum)) / (1 - momentum)
    assert (module.weight.value == closed).all()


@pytest.mark.parametrize("name", ["sgd", "momentum", "decay", "adam", "adagrad"])
def test_pytorch_agrees(name):
    torch = pytest.importorskip("torch")
    module = layer()
    start, given = module.weight.value.copy(), gradients(module)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    ours, optimizer = {
        "sgd": lambda: (SGD(module, 0.1), torch.optim.SGD([theirs], 0.1)),
        "momentum": lambda: (SGD(module, 0.1, 0.9), torch.optim.SGD([theirs], 0.1, 0.9)),
        "decay": lambda: (SGD(module, 0.1, 0.9, 0.01), torch.optim.SGD([theirs], 0.1, 0.9, weight_decay=0.01)),
        "adam": lambda: (Adam(module, 0.01), torch.optim.Adam([theirs], 0.01)),
        "adagrad": lambda: (Adagrad(module, 0.01), torch.optim.Adagrad([theirs], 0.01)),
    }[name]()
    run(module, ours, given)
    for g in given:
        theirs.grad = torch.from_numpy(g["weight"].copy())
        optimizer.step()
    if name == "adam":
        bound = 2 * adam_bound(start, adam_twin(start, given, 0.01, 0.9, 0.999, 1e-8)[1], np.float64)
    elif name == "adagrad":
        bound = 2 * adagrad_bound(start, adagrad_twin(start, given, 0.01, 1e-10)[1], np.float64)
    else:  # a gradient enters p with a factor of at most rate/(1 - momentum), and passes at most 5 roundings in each step, on both sides
        total = np.abs(start) + sum(np.abs(g["weight"]) for g in given) + STEPS * np.abs(start)
        bound = 2 * relative_bound(5 * STEPS, total, np.float64)
    assert_within(module.weight.value, theirs.detach().numpy(), bound)


def test_only_parameters_with_a_gradient_move():
    module = layer()
    bias = module.bias.value.copy()
    Adam(module).step({"weight": np.ones((2, 3))})
    assert_same_bits(module.bias.value, bias)


def test_a_gradient_array_may_be_reused_by_its_owner():
    """The velocity is the optimizer's own array."""
    first, second = layer(), layer()
    one, two = SGD(first, 0.1, 0.9), SGD(second, 0.1, 0.9)
    buffer = np.ones((2, 3))
    for value in (1.0, 5.0, -2.0):
        buffer[:] = value
        one.step({"weight": buffer})
        two.step({"weight": np.full((2, 3), value)})
    assert_same_bits(first.weight.value, second.weight.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays(dtype):
    for make in (lambda m: SGD(m, 0.1, 0.9, 0.01), Adam, Adagrad):
        module = layer(dtype)
        assert run(module, make(module), gradients(module)).dtype == dtype
        assert unit(module.weight.dtype) == unit(dtype)


@pytest.mark.parametrize("make", [lambda m: SGD(m, 0.1, 0.9), Adam, Adagrad])
def test_a_gradient_that_is_not_finite_moves_its_own_number_alone(make):
    """And without a warning, which would be an error here."""
    module, twin = layer(np.float32), layer(np.float32)
    g = np.ones((2, 3), np.float32)
    make(twin).step({"weight": g})
    g[0, 0], g[1, 2] = np.nan, np.inf
    make(module).step({"weight": g})
    moved, expected = module.weight.value.ravel(), twin.weight.value.ravel()
    assert_same_bits(moved[1:5], expected[1:5])
    assert not np.isfinite(moved[[0, 5]]).any()


BAD = {
    "SGD(rate=0)": (lambda m: SGD(m, 0), r"`rate` \(=0\) must be positive"),
    "SGD(rate=nan)": (lambda m: SGD(m, float("nan")), r"`rate` \(=nan\)"),
    "SGD(momentum=1)": (lambda m: SGD(m, 0.1, 1.0), r"`momentum` \(=1.0\) must lie in \[0, 1\)"),
    "SGD(decay=-1)": (lambda m: SGD(m, 0.1, 0.0, -1), r"`decay` \(=-1\) must not be negative"),
    "Adam(rate=-1)": (lambda m: Adam(m, -1), r"`rate` \(=-1\)"),
    "Adam(betas=(0.9, 1))": (lambda m: Adam(m, 0.1, (0.9, 1)), r"`betas\[1\]` \(=1\) must lie in \[0, 1\)"),
    "an unknown name": (lambda m: Adam(m).step({"weights": np.zeros((2, 3))}), "no parameters of Linear: weights"),
    "Adam(eps=-1)": (lambda m: Adam(m, eps=-1), r"`eps` \(=-1\) must not be negative"),
    "Adagrad(rate=0)": (lambda m: Adagrad(m, 0), r"`rate` \(=0\) must be positive"),
    "Adagrad(eps=nan)": (lambda m: Adagrad(m, eps=float("nan")), r"`eps` \(=nan\) must not be negative"),
    "another shape": (lambda m: SGD(m, 0.1).step({"weight": np.zeros(3)}),
                      r"gradient of weight is float64 \(3,\), but must be float64 \(2, 3\)"),
    "another dtype": (lambda m: Adam(m).step({"weight": np.zeros((2, 3), np.float32)}), "gradient of weight is float32"),
}


@pytest.mark.parametrize("row", BAD)
def test_bad_arguments(row):
    do, message = BAD[row]
    module = layer()
    before = module.state_dict()
    with pytest.raises(ArgumentError, match=message):
        do(module)
    for name, value in module.state_dict().items():
        assert_same_bits(value, before[name])
