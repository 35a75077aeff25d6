"""Optimizers against closed forms in exact arithmetic, loop twins, and PyTorch."""

import math

import numpy as np
import pytest

import npreparam
from npreparam import ArgumentError
from npreparam.nn import SGD, Adagrad, Adam, Linear, Module
from npreparam.tape import Tensor
from tests.tolerances import assert_same_bits, assert_within, relative_bound, unit

STEPS = 12


def layer(dtype=np.float64, seed=0):
    return Linear(3, 2, rng=np.random.default_rng(seed), dtype=dtype)


def gradients(module, steps=STEPS):
    rng = np.random.default_rng(9)
    return [{name: rng.standard_normal(p.shape).astype(p.dtype) for name, p in module.parameters().items()} for _ in range(steps)]


def run_all(optimizer, given):
    for g in given:
        optimizer.step(g)


def run(module, optimizer, given):
    run_all(optimizer, given)
    return module.weight.value


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


def adam_twin(p, given, rate, b1, b2, eps):
    """Kingma and Ba, algorithm 1, one number at a time in Python floats; with the sum of the moves' magnitudes."""
    p, moved = p.copy(), np.zeros(p.shape)
    for at in np.ndindex(p.shape):
        m = v = 0.0
        for t, g in enumerate((g["weight"][at] for g in given), 1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            step = rate * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
            p[at] -= step
            moved[at] += rate * sum(abs(g["weight"][at]) for g in given[:t]) / math.sqrt(v / (1 - b2**t))
    return p, moved


def adam_bound(p, moved, dtype):
    """Each of STEPS moves passes 3 roundings for each moment's update, at most 12 more, and STEPS subtractions, for |p| plus all moves.

    1/(1 - b2^t) and 1 - b2 are taken in float64 and are rounded once. `moved` bounds the terms of m without their cancellation.
    """
    return 2 * relative_bound(3 * STEPS + 12 + STEPS, np.abs(p) + moved, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rate", "betas", "eps"), [(1e-3, (0.9, 0.999), 1e-8), (0.5, (0.0, 0.5), 0.125), (0.1, (0.5, 0.0), 1e-3)])
def test_adam_equals_its_algorithm(rate, betas, eps, dtype):
    module = layer(dtype)
    start, given = module.weight.value.astype(np.float64), gradients(module)
    wide = [{name: g.astype(np.float64) for name, g in step.items()} for step in given]
    expected, moved = adam_twin(start, wide, rate, *betas, eps)
    assert_within(run(module, Adam(module, rate, betas, eps), given), expected, adam_bound(start, moved, dtype))


@pytest.mark.parametrize("fault", ["no correction of m", "no correction of v", "betas swapped", "eps inside the root"])
def test_planted_faults_of_adam_are_caught(fault):
    module, rate, (b1, b2), eps = layer(), 1e-2, (0.9, 0.999), 1e-3
    start, given = module.weight.value.copy(), gradients(module)
    expected, moved = adam_twin(start, given, rate, b1, b2, eps)
    p, m, v = start.copy(), 0.0, 0.0
    if fault == "betas swapped":
        b1, b2 = b2, b1
    for t, g in enumerate((g["weight"] for g in given), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        first, second = 1 if fault == "no correction of m" else 1 - b1**t, 1 if fault == "no correction of v" else 1 - b2**t
        root = np.sqrt(v / second + eps) if fault == "eps inside the root" else np.sqrt(v / second) + eps
        p = p - rate * (m / first) / root
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(p, expected, adam_bound(start, moved, np.float64))


def test_adams_first_step_is_rate_times_the_sign():
    """m/(1-b1) = g and sqrt(v/(1-b2)) = |g|: without eps, every number moves by the rate, whatever the gradient's size."""
    module = layer()
    module.update({"weight": np.zeros((2, 3))})
    g = np.array([[1e-6, -1.0, 1e6], [3.0, -1e-3, 2.0]])
    Adam(module, 0.5, eps=0.0).step({"weight": g})
    assert_within(module.weight.value, -0.5 * np.sign(g), relative_bound(16, 0.5, np.float64))


def adagrad_twin(p, given, rate, eps):
    """Duchi et al. with a diagonal, one number at a time in Python floats; with the sum of the moves' magnitudes."""
    p, moved = p.copy(), np.zeros(p.shape)
    for at in np.ndindex(p.shape):
        s = 0.0
        for g in (g["weight"][at] for g in given):
            s += g * g
            step = rate * g / (math.sqrt(s) + eps)
            p[at] -= step
            moved[at] += abs(step)
    return p, moved


def adagrad_bound(p, moved, dtype):
    """Each of STEPS moves passes at most 2 roundings for each term of s, 6 more, and STEPS subtractions; p and all moves bound what is rounded."""
    return 2 * relative_bound(2 * STEPS + 6 + STEPS, np.abs(p) + moved, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rate", "eps"), [(1e-2, 1e-10), (0.5, 0.125), (0.1, 0.0)])
def test_adagrad_equals_its_algorithm(rate, eps, dtype):
    module = layer(dtype)
    start, given = module.weight.value.astype(np.float64), gradients(module)
    wide = [{name: g.astype(np.float64) for name, g in step.items()} for step in given]
    expected, moved = adagrad_twin(start, wide, rate, eps)
    assert_within(run(module, Adagrad(module, rate, eps), given), expected, adagrad_bound(start, moved, dtype))


@pytest.mark.parametrize("fault", ["eps inside the root", "no sum", "mean of the squares", "a step late"])
def test_planted_faults_of_adagrad_are_caught(fault):
    module, rate, eps = layer(), 1e-2, 1e-3
    start, given = module.weight.value.copy(), gradients(module)
    expected, moved = adagrad_twin(start, given, rate, eps)
    p, s = start.copy(), 0.0
    for t, g in enumerate((g["weight"] for g in given), 1):
        before, s = s, (0 if fault == "no sum" else s) + g * g
        scale = {"mean of the squares": s / t, "a step late": before if t > 1 else s}.get(fault, s)
        p = p - rate * g / (np.sqrt(scale + eps) if fault == "eps inside the root" else np.sqrt(scale) + eps)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(p, expected, adagrad_bound(start, moved, np.float64))


def test_adagrad_on_a_constant_gradient_moves_by_the_roots_of_harmonic_numbers():
    """s = t*g^2 in numbers that do not round, so that the t-th move is rate/sqrt(t), whatever the gradient's size."""
    module = layer()
    module.update({"weight": np.zeros((2, 3))})
    run(module, Adagrad(module, 0.5, eps=0.0), [{"weight": np.array([[1.0, -2.0, 0.25], [3.0, -5.0, 2.0**-60]])}] * STEPS)
    total = 0.5 * math.fsum(t**-0.5 for t in range(1, STEPS + 1))
    assert_within(module.weight.value, -total * np.array([[1, -1, 1], [1, -1, 1]]), relative_bound(4 * STEPS, total, np.float64))


@pytest.mark.parametrize("make", [Adam, Adagrad])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_moves_the_same_wherever_it_lies_and_with_any_number_of_threads(make, dtype):
    """Pieces of several arrays, of lengths that are no multiple of a piece or a vector; each number has the bits it has alone."""
    rng = np.random.default_rng(0)
    starts, *given = ([rng.standard_normal(size).astype(dtype) for size in (1, 8192, 300_001, 17)] for _ in range(4))

    class Several(Module):
        def __init__(self, chosen):
            for number, p in enumerate(starts):
                setattr(self, f"p{number}", Tensor(p[chosen]))

    def moved(chosen=slice(None)):
        module = Several(chosen)
        run_all(make(module, 0.1), [{f"p{number}": g[chosen] for number, g in enumerate(step)} for step in given])
        return module.state_dict()

    threads, whole = npreparam.get_num_threads(), moved()
    try:
        for count in (1, 3):
            npreparam.set_num_threads(count)
            for name, value in moved().items():
                assert_same_bits(value, whole[name])
    finally:
        npreparam.set_num_threads(threads)
    for name, value in moved(slice(-1, None)).items():
        assert_same_bits(value, whole[name][-1:])


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adam_moves_its_own_arrays_alone(dtype):
    """Not the one that a user put into the module, nor a state dict; and an array that is replaced is moved from where it is."""
    module = layer(dtype)
    mine = np.ones((2, 3), dtype)
    module.update({"weight": mine})
    optimizer, g = Adam(module, 0.5), {"weight": np.ones((2, 3), dtype)}
    optimizer.step(g)
    state = module.state_dict()["weight"]
    kept = state.copy()
    optimizer.step(g)
    assert (mine == 1).all()
    assert_same_bits(state, kept)
    other = np.full((2, 3), 8, dtype)
    module.update({"weight": other})
    optimizer.step(g)
    assert (other == 8).all()
    assert (module.weight.value < 8).all()
    assert (module.weight.value > 7).all()
