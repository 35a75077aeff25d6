"""Every layer is its operation with its own parameters; bad geometry is named where the layer is made."""

import numpy as np
import pytest

from npreparam import ArgumentError, ShapeError, ops
from npreparam.nn import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    GlobalAvgPool,
    Identity,
    Linear,
    ReLU,
    RepVGGBlock,
    Sequential,
    Sum,
)
from tests import naive
from tests.tolerances import assert_same_bits, assert_within, batch_norm_bound


def rng():
    return np.random.default_rng(0)


def integers(shape, dtype=np.float32):
    return rng().integers(-4, 5, shape).astype(dtype)


def fill(module):
    """Every parameter as small integers, so that results are exact."""
    module.update({name: integers(p.shape, p.dtype) for name, p in module.parameters().items()})
    return module


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_conv2d(bias, relu, training):
    layer = fill(Conv2d(4, 6, (3, 2), stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2, bias=bias, relu=relu, rng=rng()))
    x = integers((2, 4, 5, 6))
    y = layer(x, training)
    expected = naive.conv2d(x, layer.weight.value, layer.bias.value if bias else None, (2, 1), ((1, 0), (0, 2)), (1, 2), 2)
    assert ((y.value if training else y) == (np.maximum(expected, 0) if relu else expected)).all()


@pytest.mark.parametrize("bias", [False, True])
def test_conv_transpose2d(bias):
    layer = fill(ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=bias, rng=rng()))
    x = integers((2, 4, 3, 4))
    expected = naive.conv2d_input_grad(x, layer.weight.value, (2, 6, 6, 8), (2, 2), ((1, 1), (1, 1)), (1, 1), 2)
    assert (layer(x) == (expected + layer.bias.value.reshape(1, -1, 1, 1) if bias else expected)).all()


@pytest.mark.parametrize("bias", [False, True])
def test_linear(bias):
    layer, x = fill(Linear(3, 2, bias=bias, rng=rng())), integers((5, 3))
    expected = naive.matmul(x, layer.weight.value.T.copy())
    assert (layer(x) == (expected + layer.bias.value if bias else expected)).all()


def test_batch_norm_replaces_its_running_statistics_once_per_training_call():
    layer, x = BatchNorm2d(2, momentum=0.25, eps=0.5, dtype=np.float64), integers((2, 2, 2, 2), np.float64)
    layer.update({"weight": np.array([2.0, -1.0]), "bias": np.array([1.0, 3.0])})
    mean, var = naive.moments(x)
    count = x.size // 2
    y = layer(x, training=True).value
    gamma, beta = layer.weight.value, layer.bias.value
    assert_within(y, naive.batch_norm(x, gamma, beta, mean, var, 0.5),
                  2 * batch_norm_bound(x, gamma, beta, np.abs(x).mean((0, 2, 3)), var, 0.5, np.float64))
    _, new_mean, new_var = ops.batch_norm(x, gamma, beta, np.zeros(2), np.ones(2), training=True, momentum=0.25, eps=0.5)
    assert_same_bits(layer.running_mean, new_mean)
    assert_same_bits(layer.running_var, new_var)
    assert (layer.running_mean == mean / 4).all()  # all of these are exact: sums of small integers, and powers of two
    assert_within(layer.running_var, 0.75 + 0.25 * var * count / (count - 1), 8 * np.spacing(layer.running_var))
    evaluated = layer(x)
    assert_same_bits(evaluated, ops.batch_norm(x, gamma, beta, new_mean, new_var, eps=0.5))
    assert layer.numbers()[2] is layer.running_mean
    assert layer.numbers()[4] == 0.5


def test_shape_layers():
    x = integers((2, 3, 4, 2))
    assert (ReLU()(x) == np.maximum(x, 0)).all()
    assert Identity()(x) is x
    assert (GlobalAvgPool()(x) == x.mean((2, 3))).all()
    assert (Flatten()(x) == x.reshape(2, 24)).all()
    assert Flatten()(x[:0]).shape == (0, 24)
    assert (Sequential(ReLU(), Flatten())(x) == np.maximum(x, 0).reshape(2, 24)).all()
    assert Sequential()(x) is x
    assert (Sum(Identity(), ReLU(), Identity())(x) == 2 * x + np.maximum(x, 0)).all()
    assert Sum(Identity())(x) is x


def test_an_empty_batch_passes_every_layer():
    x = np.zeros((0, 4, 8, 8), np.float32)
    network = Sequential(RepVGGBlock(4, 4, rng=rng()), Conv2d(4, 2, 3, rng=rng()), GlobalAvgPool(), Linear(2, 5, rng=rng()))
    assert network(x).shape == (0, 5)


BAD = {
    "groups that do not divide in_channels": (lambda: Conv2d(5, 4, 3, groups=2, rng=rng()), ShapeError,
                                              r"`in_channels` \(=5\) must be divisible by `groups` \(=2\)"),
    "groups that do not divide out_channels": (lambda: Conv2d(4, 5, 3, groups=2, rng=rng()), ShapeError,
                                               r"`out_channels` \(=5\) must be divisible by `groups` \(=2\)"),
    "transposed groups": (lambda: ConvTranspose2d(4, 5, 3, groups=2, rng=rng()), ShapeError, r"`out_channels` \(=5\)"),
    "no channels": (lambda: Conv2d(0, 4, 3, rng=rng()), ArgumentError, r"`in_channels` \(=0\) must be positive"),
    "stride 0": (lambda: Conv2d(4, 4, 3, stride=0, rng=rng()), ArgumentError, r"`stride` \(=0\) must be positive"),
    "dilation -1": (lambda: ConvTranspose2d(4, 4, 3, dilation=-1, rng=rng()), ArgumentError, r"`dilation` \(=-1\) must be positive"),
    "negative padding": (lambda: Conv2d(4, 4, 3, padding=-1, rng=rng()), ArgumentError, r"`padding` \(=-1\) must not be negative"),
    "unknown padding": (lambda: Conv2d(4, 4, 3, padding="reflect", rng=rng()), ArgumentError, r"`padding` \(='reflect'\) must be"),
    "padding name, transposed": (lambda: ConvTranspose2d(4, 4, 3, padding="SAME_UPPER", rng=rng()), ArgumentError, "`padding`"),
    "kernel 2.5": (lambda: Conv2d(4, 4, 2.5, rng=rng()), ArgumentError, r"`kernel` \(=2.5\) must be an integer"),
    "batch norm of 0 channels": (lambda: BatchNorm2d(0), ArgumentError, r"`channels` \(=0\) must be positive"),
    "linear": (lambda: Linear(3, 0, rng=rng()), ArgumentError, r"`out_features` \(=0\) must be positive"),
    "no branch": (lambda: Sum(), ArgumentError, "`branches` .* at least one module"),
    "a pair as RepVGG's stride": (lambda: RepVGGBlock(4, 4, stride=(1, 1), rng=rng()), ArgumentError,
                                  r"`stride` \(=\(1, 1\)\) must be an integer"),
    "RepVGG's groups": (lambda: RepVGGBlock(4, 4, groups=3, rng=rng()), ShapeError,
                        r"`in_channels` \(=4\) must be divisible by `groups` \(=3\)"),
}


@pytest.mark.parametrize("row", BAD)
def test_bad_arguments(row):
    make, kind, message = BAD[row]
    with pytest.raises(kind, match=message):
        make()
