"""Adam and Adagrad against their algorithms one number at a time; what their kernel, which works on raw memory, is never given."""

import math

import numpy as np
import pytest

import npreparam
from npreparam import StateError
from npreparam.nn import Adagrad, Adam, Linear, Module
from npreparam.tape import Tensor
from tests.tolerances import assert_same_bits, assert_within, relative_bound

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


@pytest.mark.parametrize("make", [Adam, Adagrad])
@pytest.mark.parametrize("order", ["F", "strided", "read-only"])
def test_gradients_and_parameters_of_any_layout_give_the_same_bits(make, order):
    def laid_out(array):
        if order == "strided":
            return np.repeat(array, 2, axis=-1)[..., ::2]
        array = np.array(array, order="F")
        array.flags.writeable = order == "F"
        return array

    plain, other = layer(), layer()
    other.update({name: laid_out(p) for name, p in plain.state_dict().items()})
    run(plain, make(plain, 0.1), gradients(plain))
    run(other, make(other, 0.1), [{name: laid_out(g) for name, g in step.items()} for step in gradients(plain)])
    assert_same_bits(other.weight.value, plain.weight.value)


@pytest.mark.parametrize("make", [Adam, Adagrad])
def test_an_array_of_its_own_that_became_read_only_is_not_written_to(make):
    module = layer()
    optimizer, (first, second, *_) = make(module, 0.1), gradients(module)
    optimizer.step(first)
    given = module.weight.value
    kept, given.flags.writeable = given.copy(), False
    optimizer.step(second)
    assert_same_bits(given, kept)
    assert (module.weight.value != kept).all()


STRANGE = {"another shape": np.zeros((1, 3)), "another dtype": np.zeros((2, 3), np.float32), "another layout": np.zeros((3, 2)).T,
           "read-only": np.broadcast_to(0.0, (2, 3)), "the other byte order": np.zeros((2, 3), ">f8")}


@pytest.mark.parametrize("make", [Adam, Adagrad])
@pytest.mark.parametrize("strange", STRANGE)
def test_moments_that_do_not_fit_are_refused_before_anything_moves(make, strange):
    module = layer()
    optimizer, (first, second, *_) = make(module, 0.1), gradients(module)
    optimizer.step(first)
    before, steps = module.state_dict(), optimizer.steps
    optimizer.moments["weight"] = (STRANGE[strange],) * optimizer.kept
    with pytest.raises(StateError, match=r"`moments` of weight"):
        optimizer.step(second)
    optimizer.moments["weight"] = ()
    with pytest.raises(StateError, match=rf"`moments` of weight .* {optimizer.kept} arrays"):
        optimizer.step(second)
    assert optimizer.steps == steps
    for name, value in module.state_dict().items():
        assert_same_bits(value, before[name])
