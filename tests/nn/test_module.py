"""Names, state dicts, the training argument, and what is recorded on the tape."""

import numpy as np
import pytest

from npreparam import ArgumentError, StateError
from npreparam.nn import BatchNorm2d, Conv2d, Identity, Linear, Module, ReLU, RepVGGBlock, Sequential, Sum, count_parameters
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_same_bits


def net(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return Sequential(Conv2d(2, 3, 3, padding=1, rng=rng, dtype=dtype), BatchNorm2d(3, dtype=dtype), ReLU(),
                      Sum(Identity(), Conv2d(3, 3, 1, bias=False, rng=rng, dtype=dtype)))


def image(dtype=np.float32):
    return np.random.default_rng(1).standard_normal((2, 2, 4, 4)).astype(dtype)


def test_dotted_names():
    module = net()
    assert list(module.parameters()) == ["0.weight", "0.bias", "1.weight", "1.bias", "3.1.weight"]
    assert list(module.buffers()) == ["1.running_mean", "1.running_var"]
    assert set(module.state_dict()) == {*module.parameters(), *module.buffers()}
    assert count_parameters(module) == 3 * 2 * 9 + 3 + 3 + 3 + 9


def test_repvgg_names_are_those_of_the_authors_checkpoints():
    branch = {f"{name}.{part}" for name in ("rbr_dense", "rbr_1x1") for part in
              ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")}
    identity = {f"rbr_identity.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    assert set(RepVGGBlock(4, 4, rng=np.random.default_rng(0)).state_dict()) == branch | identity
    assert set(RepVGGBlock(4, 4, stride=2, rng=np.random.default_rng(0)).state_dict()) == branch


def test_state_dict_round_trip():
    first, second, x = net(0), net(1), image()
    first(x, training=True)
    assert (first(x) != second(x)).any()
    second.load_state_dict(first.state_dict())
    assert_same_bits(second(x), first(x))


def test_a_state_dict_is_a_copy_both_ways():
    module, other = net(0), net(1)
    pristine, given = module.state_dict(), module.state_dict()
    for value in module.state_dict().values():
        value[:] = 7  # what was handed out
    other.load_state_dict(given)
    for value in given.values():
        value[:] = 7  # what was taken in
    for owner in (module, other):
        for name, value in owner.state_dict().items():
            assert_same_bits(value, pristine[name])


def test_one_error_lists_every_misfit_and_changes_nothing():
    module = net()
    before, state = module.state_dict(), module.state_dict()
    del state["0.bias"], state["1.running_var"]
    state |= {"1.weight": np.zeros((3, 1), np.float32), "3.1.weight": state["3.1.weight"].astype(np.float64),
              "4.weight": np.zeros((2, 2), np.float32), "0.weight": np.zeros_like(state["0.weight"])}
    with pytest.raises(StateError) as caught:
        module.load_state_dict(state)
    assert str(caught.value).splitlines() == [
        "the state dict does not fit Sequential:",
        "  missing: 0.bias (3,)",
        "  missing: 1.running_var (3,)",
        "  unexpected: 4.weight (2, 2)",
        "  shape of 1.weight: (3, 1) instead of (3,)",
        "  dtype of 3.1.weight: float64 instead of float32",
    ]
    for name, value in module.state_dict().items():
        assert_same_bits(value, before[name])


def test_what_is_no_array_is_listed_too():
    module = Linear(2, 2, rng=np.random.default_rng(0))
    with pytest.raises(StateError) as caught:
        module.load_state_dict(module.parameters() | {"extra": None})
    assert str(caught.value).splitlines()[1:] == ["  unexpected: extra NoneType", "  type of weight: a Tensor instead of an array",
                                                  "  type of bias: a Tensor instead of an array"]
    with pytest.raises(StateError, match=r"`state` \(a list\) must be a mapping"):
        module.load_state_dict([1, 2])


def test_another_byte_order_is_the_same_dtype():
    module, other = net(0), net(1)
    other.load_state_dict({name: value.astype(value.dtype.newbyteorder(">")) for name, value in module.state_dict().items()})
    for name, value in other.state_dict().items():
        assert_same_bits(value, module.state_dict()[name])


@pytest.mark.parametrize("contain", [list, tuple, lambda modules: dict(enumerate(modules))])
@pytest.mark.parametrize("entry", [ReLU(), Tensor(np.zeros(1))])
def test_a_container_that_would_hide_parameters_is_refused(contain, entry):
    module = Module()
    with pytest.raises(ArgumentError, match=r"`layers` \(a (list|tuple|dict)\) holds a (ReLU|Tensor) that would not be found; .*Seq"):
        module.layers = contain([1, entry])
    module.layers = contain([1, "two"])  # what holds no state is nobody's business


def test_training_is_an_argument_and_changes_running_statistics_alone():
    module, x = net(), image()
    before = module.state_dict()
    module(x)
    module(Tensor(x))
    for name, value in module.state_dict().items():
        assert_same_bits(value, before[name])
    module(x, training=True)
    changed = {name for name, value in module.state_dict().items() if (value != before[name]).any()}
    assert changed == {"1.running_mean", "1.running_var"}


def test_arrays_in_evaluation_give_arrays_and_everything_else_is_recorded():
    module, x = net(), image()
    assert isinstance(module(x), np.ndarray)
    for y in (module(x, training=True), module(Tensor(x)), module(Tensor(x), training=True)):
        assert isinstance(y, Tensor)
        assert set(grad(y, module.parameters(), np.ones_like(y.value))) == set(module.parameters())
    assert_same_bits(module(Tensor(x)).value, module(x))


def test_update_replaces_by_name():
    module = net()
    module.update({"3.1.weight": np.zeros((3, 3, 1, 1), np.float32)})
    assert not module.parameters()["3.1.weight"].value.any()


@pytest.mark.parametrize(("values", "message"), [
    ({"3.1.wieght": np.zeros(1)}, "Sequential has no parameter or buffer 3.1.wieght; it has 0.weight, 0.bias, "),
    ({"1.running_mean": np.zeros(4)}, r"1.running_mean of Sequential has shape \(3,\), not \(4,\)"),
])
def test_an_update_that_does_not_fit_changes_nothing(values, message):
    module = net()
    before = module.state_dict()
    with pytest.raises(StateError, match=message):
        module.update({"0.bias": np.ones(3, np.float32), **values})
    for name, value in module.state_dict().items():
        assert_same_bits(value, before[name])


def test_astype_is_a_copy_in_another_dtype():
    module, x = net(), image()
    module(x, training=True)
    before, wide = module.state_dict(), module.astype(np.float64)
    assert wide(x.astype(np.float64)).dtype == np.float64
    for name, value in wide.state_dict().items():
        assert_same_bits(value, before[name].astype(np.float64))
    wide(x.astype(np.float64), training=True)
    wide.update({"0.weight": np.zeros((3, 2, 3, 3))})
    for name, value in module.state_dict().items():
        assert_same_bits(value, before[name])
    for name, value in wide.astype(np.float32).state_dict().items():
        assert value.dtype == np.float32, name


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        Module()(image())


@pytest.mark.parametrize("seed", [0, 1])
def test_same_generator_same_bits(seed):
    first, second = net(seed).state_dict(), net(seed).state_dict()
    for name in first:
        assert_same_bits(first[name], second[name])


def test_no_module_touches_the_global_generator():
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    net()(image(), training=True)
    RepVGGBlock(3, 3, rng=np.random.default_rng(0)).fuse()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.parametrize("make", [lambda: Sequential(ReLU(), "relu"), lambda: Sum(np.zeros(3))])
def test_only_modules_are_adopted(make):
    with pytest.raises(ArgumentError, match=r"number \d \(a (str|ndarray)\) must be a Module"):
        make()


def test_an_unused_parameter_is_named():
    rng = np.random.default_rng(0)
    module = Sequential(Linear(2, 2, rng=rng))
    other = Tensor(np.zeros(1, np.float32), "forgotten")
    y = module(np.ones((1, 2), np.float32), training=True)
    with pytest.raises(ValueError, match="forgotten"):
        grad(y, {**module.parameters(), "forgotten": other}, np.ones((1, 2), np.float32))
