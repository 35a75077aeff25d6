"""`fuse` of arbitrary trees: equal to the tree, one layer for each linear part, never a change of its input; and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npreparam import FusionError, nn, ops
from npreparam.nn import Crop, Filter2d, ScalarAffine
from tests.nn import trees
from tests.tolerances import assert_same_bits


def conv(rng, inputs, outputs, kernel, padding=0, **more):
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, rng=rng, dtype=np.float64, **more)


def norm(channels):
    return nn.BatchNorm2d(channels, dtype=np.float64)


def exact_numbers(module, rng):
    """Integers as parameters, and var + eps of 1 or 4: nothing rounds in float64."""
    values = {name: rng.integers(-2, 3, p.shape).astype(np.float64) for name, p in module.parameters().items()}
    for name, buffer in module.buffers().items():
        if "running" in name:
            values[name] = rng.integers(-2, 3, buffer.shape) * 1.0 if name.endswith("mean") else rng.choice([0.75, 3.75], buffer.shape)
    module.update(values)
    for bn in trees.norms(module):
        bn.eps = 0.25
    return module


def random_tree(draw, depth, rng):
    """A module of 4 to 4 channels that keeps the size."""
    kind = draw(st.sampled_from(["leaf", "chain", "sum", "concat"])) if depth else "leaf"
    if kind == "leaf":
        return random_leaf(draw, rng)
    children = [random_tree(draw, depth - 1, rng) for _ in range(draw(st.integers(1, 3)))]
    if kind == "chain":
        return nn.Sequential(*children)
    if kind == "sum":
        return nn.Sum(*children)
    return nn.Sequential(nn.Concat(*children), conv(rng, 4 * len(children), 4, 1, bias=False))


def random_leaf(draw, rng):
    kind = draw(st.sampled_from(["conv", "row", "depthwise", "pointwise", "norm", "relu", "relu inside", "identity", "shuffle", "pool", "padded",
                                 "dbb", "scale", "minus"]))
    return {
        "conv": lambda: conv(rng, 4, 4, 3, 1, bias=False), "row": lambda: conv(rng, 4, 4, (1, 3), (0, 1), groups=2),
        "depthwise": lambda: conv(rng, 4, 4, 3, 1, groups=4), "pointwise": lambda: conv(rng, 4, 4, 1),
        "norm": lambda: norm(4), "relu": nn.ReLU, "relu inside": lambda: conv(rng, 4, 4, 3, 1, relu=True), "identity": nn.Identity,
        "shuffle": lambda: nn.ChannelShuffle(4, 2), "scale": lambda: nn.Scale(4, bias=True, dtype=np.float64),
        "pool": lambda: nn.AvgPool2d(4, (2, 1), stride=1, padding=((1, 0), (0, 0))), "minus": lambda: nn.Times(4, -2.0),
        "padded": lambda: nn.Sequential(nn.Pad(4, 1), conv(rng, 4, 4, 1), conv(rng, 4, 4, 3)),
        "dbb": lambda: nn.Sequential(conv(rng, 4, 4, 1), nn.BatchNormPad2d(4, 1, dtype=np.float64), Filter2d(4, np.eye(3), dtype=np.float64)),
    }[kind]()


def count(module):
    """Number of modules that compute."""
    children = list(module.children())
    return 1 if not children else sum(count(child) for _, child in children)


@settings(max_examples=150)
@given(data=st.data(), seed=st.integers(0, 2**32), depth=st.integers(1, 5))
def test_random_trees(data, seed, depth):
    rng = np.random.default_rng(seed)
    tree = exact_numbers(random_tree(data.draw, depth, rng), rng)
    x = rng.integers(-2, 3, (2, 4, 4, 5)).astype(np.float64)
    before, expected = tree.state_dict(), tree(x)
    fused = nn.fuse(tree, partial=True, dtype=np.float64)
    assert np.abs(expected).max(initial=0) < 2**45
    assert (fused(x) == expected).all()
    assert count(fused) <= max(1, count(tree)) + 1  # a ReLU within a convolution counts twice where a branch is added to it
    for name, value in tree.state_dict().items():
        assert_same_bits(value, before[name])


def test_what_is_fused_is_its_own():
    rng = np.random.default_rng(0)
    tree = exact_numbers(nn.Sequential(conv(rng, 2, 2, 3, 1), norm(2), nn.ReLU(), conv(rng, 2, 3, 1)), rng)
    x = rng.integers(-2, 3, (1, 2, 4, 4)).astype(np.float64)
    expected, fused = tree(x), nn.fuse(tree)
    assert [type(part) for part in fused] == [nn.Conv2d, nn.Conv2d]
    fused.update({name: 0 * p.value for name, p in fused.parameters().items()})
    assert (tree(x) == expected).all()


def layers(module):
    return [type(part).__name__ for part in module] if isinstance(module, nn.Sequential) else type(module).__name__


def test_layers_of_every_kind_that_result():
    rng = np.random.default_rng(0)
    f64 = {"rng": rng, "dtype": np.float64}
    image, vector = rng.integers(-2, 3, (2, 4, 4, 4)).astype(np.float64), rng.integers(-2, 3, (2, 4)).astype(np.float64)
    cases = [
        (nn.Sequential(nn.Linear(4, 3, **f64), norm(3)), vector, "Linear"),
        (nn.Sequential(norm(4), nn.Scale(4, dtype=np.float64)), vector, "Scale"),
        (nn.Sequential(norm(4), nn.Scale(4, dtype=np.float64)), image, "Scale"),
        (nn.Sequential(nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2, **f64), norm(2)), image, "ConvTranspose2d"),
        (nn.Sequential(nn.ConvTranspose2d(4, 2, 3, padding=1, **f64), norm(2)), image, "Conv2d"),
        (nn.Sequential(Crop(4, 1), ScalarAffine(4, dtype=np.float64), nn.Slice(4, 1, 3)), image, "Conv2d"),
        (nn.Sequential(conv(rng, 4, 4, 3, "SAME_UPPER"), norm(4)), image, "Conv2d"),
        (nn.Sequential(conv(rng, 4, 4, 3, 1), conv(rng, 4, 4, 3, 1)), image, ["Conv2d", "Conv2d"]),
        (nn.Sequential(norm(4), conv(rng, 4, 4, 3, 1), norm(4)), image, ["BatchNorm2d", "Conv2d"]),
        (nn.Sequential(conv(rng, 4, 4, 3, 1), nn.GlobalAvgPool(), nn.Linear(4, 2, **f64)), image, ["Conv2d", "GlobalAvgPool", "Linear"]),
        (nn.Sequential(nn.AvgPool2d(4, 2), conv(rng, 4, 4, 2)), image, "Conv2d"),
    ]
    for tree, x, expected in cases:
        exact_numbers(tree, rng)
        fused = nn.fuse(tree)
        assert layers(fused) == expected
        assert (fused(x) == tree(x)).all()


def test_linear_branches_beside_one_that_is_not():
    """Their sum is one convolution; the other branch is fused inside."""
    rng = np.random.default_rng(0)
    tree = exact_numbers(nn.Sum(a=nn.Sequential(conv(rng, 2, 2, 3, 1), norm(2)), b=nn.Identity(),
                                c=nn.Sequential(conv(rng, 2, 2, 1), norm(2), nn.ReLU(), norm(2))), rng)
    x = rng.integers(-2, 3, (1, 2, 4, 4)).astype(np.float64)
    fused = nn.fuse(tree)
    assert [layers(child) for _, child in fused.children()] == ["Conv2d", ["Conv2d", "BatchNorm2d"]]
    assert (fused(x) == tree(x)).all()


def test_interior_is_an_explicit_choice():
    rng = np.random.default_rng(0)
    tree = exact_numbers(nn.Sequential(conv(rng, 2, 2, 1), conv(rng, 2, 2, 3, 1)), rng)
    tree.update({"0.bias": np.ones(2)})
    x = rng.integers(-2, 3, (1, 2, 6, 6)).astype(np.float64)
    assert layers(nn.fuse(tree)) == ["Conv2d", "Conv2d"]
    wrong = nn.fuse_to_one(tree, border="interior")
    errors = wrong(x) != tree(x)
    assert errors.any()
    assert not errors[:, :, 1:-1, 1:-1].any()


def tree_of(row):
    rng = np.random.default_rng(0)
    biased = nn.Sequential(pw=conv(rng, 2, 2, 1), dw=conv(rng, 2, 2, 3, 1))
    biased.update({"pw.bias": np.array([0.5, 0.0])})
    twice = nn.Sequential(conv(rng, 2, 2, 3, 1), conv(rng, 2, 2, 3, 1))
    return {
        "bias before padding": nn.Sum(main=biased, skip=nn.Identity()),
        "padding after padding": nn.Sequential(block=nn.Sum(main=twice, skip=nn.Identity())),
        "strides": nn.Sum(a=conv(rng, 2, 2, 3, 1, stride=2), b=conv(rng, 2, 2, 1)),
        "uncounted padding": nn.AvgPool2d(2, 3, stride=1, padding=1, count_include_pad=False),
        "size-dependent padding": conv(rng, 2, 2, 3, "SAME_UPPER", stride=2),
        "an activation": nn.Sum(a=nn.Sequential(conv(rng, 2, 2, 1), nn.ReLU()), b=nn.Identity()),
        "an activation inside": conv(rng, 2, 2, 1, relu=True),
        "identities alone": nn.Sum(nn.Identity(), nn.Identity()),
        "nothing": nn.Sequential(),
    }[row]


REFUSED = {
    "bias before padding": r"branch main.dw: the second of two maps pads channel 0 with 0, where the first continues with 0.5; pad with that "
                           r"constant \(`padded_with`\), make it zero, use `bias_map`, or accept",
    "padding after padding": r"branch block.main.1: the second of two maps pads the height, where the first spans 3 .*; move the padding in front",
    "strides": r"branch b: its stride is \(1, 1\), that of the first branch \(2, 2\); give all branches one stride",
    "uncounted padding": "its average leaves out the padding, so its weights differ at the border; pool with count_include_pad=True",
    "size-dependent padding": "its padding SAME_UPPER depends on the input's size where the stride is not 1; give the padding in numbers",
    "an activation": "branch a.1: ReLU is not linear; fuse the linear parts around it",
    "an activation inside": "ReLU is not linear",
    "identities alone": "all branches are identities, of an unknown number of channels",
    "nothing": "it is the identity, of an unknown number of channels",
}


@pytest.mark.parametrize("row", REFUSED)
def test_one_layer_or_the_reason_why_not(row):
    with pytest.raises(FusionError, match=REFUSED[row]):
        nn.fuse_to_one(tree_of(row))


@pytest.mark.parametrize("row", ["bias before padding", "padding after padding"])
def test_a_linear_branch_that_stays_is_an_error_unless_wanted(row):
    tree = tree_of(row)
    with pytest.raises(FusionError, match=REFUSED[row]):
        nn.fuse(tree)
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4))
    assert nn.fuse(tree, partial=True)(x).shape == tree(x).shape


@pytest.mark.parametrize("row", ["uncounted padding", "size-dependent padding", "identities alone", "an activation"])
def test_what_is_no_map_stays(row):
    tree = tree_of(row)
    x = np.random.default_rng(0).integers(-2, 3, (1, 2, 5, 6)).astype(np.float64)
    exact_numbers(tree, np.random.default_rng(1))
    assert (nn.fuse(tree)(x) == tree(x)).all()


def test_float64_numbers_are_rounded_once_to_the_dtype_wanted():
    rng = np.random.default_rng(0)
    tree = nn.Sequential(conv(rng, 2, 2, 3, 1), norm(2))
    single, double = nn.fuse(tree, dtype=np.float32), nn.fuse(tree)
    assert_same_bits(single.weight.value, double.weight.value.astype(np.float32))
    assert nn.fuse(tree.astype(np.float32)).weight.dtype == np.float32


def test_a_network_of_blocks_and_other_modules():
    """A module with a forward of its own: its children are fused, as its own `fuse` does it."""
    from npreparam.models import RepVGG
    rng = np.random.default_rng(0)
    network = RepVGG(2, 3, (4, 6), (1, 2), rng=rng)
    x = rng.standard_normal((2, 2, 8, 8)).astype(np.float32)
    fused = nn.fuse(network)
    assert [type(block) for block in fused.blocks] == [nn.Conv2d] * 3
    assert_same_bits(fused(x), network.fuse()(x))
    assert all(isinstance(block, nn.RepVGGBlock) for block in network.blocks)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_numbers_that_are_not_finite_are_refused_without_a_warning(value):
    tree = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, rng=np.random.default_rng(0)), nn.BatchNorm2d(2))
    weights = np.zeros((2, 2, 3, 3), np.float32)
    weights[0, 0, 0, 0] = value
    tree.update({"0.weight": weights, "1.weight": np.full(2, 2, np.float32)})
    with pytest.raises(FusionError, match="its fused numbers are not all finite in float32; look for NaN and infinity"):
        nn.fuse(tree)


def test_a_shared_module_is_fused_at_each_place():
    rng = np.random.default_rng(0)
    shared = conv(rng, 2, 2, 3, 1)
    tree = exact_numbers(nn.Sequential(nn.Sequential(shared, norm(2)), nn.ReLU(), nn.Sequential(shared, norm(2))), rng)
    x = rng.integers(-2, 3, (1, 2, 4, 4)).astype(np.float64)
    fused = nn.fuse(tree)
    assert layers(fused) == ["Conv2d", "Conv2d"]
    assert (fused(x) == tree(x)).all()


def test_branches_that_are_equally_large_for_some_sizes_only():
    """A pooling of 2 and a padded 3x3 convolution, of stride 2: on 4x4 images both give 2x2, on 5x5 not."""
    rng = np.random.default_rng(0)
    tree = exact_numbers(nn.Sequential(nn.ReLU(), outer=nn.Sum(a=conv(rng, 2, 2, 3, 1, stride=2), b=nn.AvgPool2d(2, 2))), rng)
    x = rng.integers(-2, 3, (1, 2, 4, 4)).astype(np.float64)
    with pytest.raises(FusionError, match=r"branch outer\.b: its output length is .* choose paddings with which all outputs are equally large"):
        nn.fuse(tree)
    assert (nn.fuse(tree, partial=True)(x) == tree(x)).all()


class Magnitude(nn.Module):
    """sqrt(x*x), as the edge branches of FRR-NET have: not linear."""

    def forward(self, x, training):
        return ops.sqrt(ops.square(x))


def test_edge_branches_with_absolute_values_stay():
    """FRR-NET: the depthwise branches become one, the absolute edges stay beside them, each fused inside."""
    rng = np.random.default_rng(0)
    edge = nn.Sequential(nn.Pad(2, 1), Filter2d(2, np.eye(3), dtype=np.float64), nn.Times(2, 3.0), Magnitude())
    tree = exact_numbers(nn.Sum(one=conv(rng, 2, 2, 1, groups=2), row=conv(rng, 2, 2, (1, 3), (0, 1), groups=2),
                                seven=conv(rng, 2, 2, 7, 3, groups=2), edge=edge), rng)
    x = rng.integers(-2, 3, (1, 2, 7, 7)).astype(np.float64)
    fused = nn.fuse(tree)
    assert [layers(child) for _, child in fused.children()] == ["Conv2d", ["Conv2d", "Magnitude"]]
    assert fused.one.weight.shape == (2, 1, 7, 7)
    assert (fused(x) == tree(x)).all()
    with pytest.raises(FusionError, match=r"branch edge\.3: Magnitude is not linear; fuse the linear parts around it"):
        nn.fuse_to_one(tree)


def test_pytorch_agrees():
    """An outside witness of grids and channel orders: a tree of PyTorch layers with the same numbers, on integers."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    pool = nn.AvgPool2d(6, 2, stride=2, padding=((1, 0), (1, 0)))
    tree = exact_numbers(nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, rng=rng, dtype=np.float64),
                                       norm(6), nn.ChannelShuffle(6, 3), nn.ReLU(),
                                       nn.Sum(conv(rng, 6, 6, 3, 2, stride=2, groups=3, dilation=2), pool), norm(6)), rng)
    deconv, bn1, _, _, branches, bn2 = tree
    inner, x = branches.children(), rng.integers(-2, 3, (2, 4, 5, 6)).astype(np.float64)
    (_, second), _ = inner
    fused = nn.fuse(tree)
    assert layers(fused) == ["ConvTranspose2d", "ReLU", "Conv2d"]

    def tensor(value):
        return torch.from_numpy(np.ascontiguousarray(value))

    def norm_of(y, bn):
        gamma, beta, mean, var, eps = bn.numbers()
        return torch.nn.functional.batch_norm(y, tensor(mean), tensor(var), tensor(gamma), tensor(beta), eps=eps)

    y = torch.nn.functional.conv_transpose2d(tensor(x), tensor(deconv.weight.value), tensor(deconv.bias.value), 2, 1, 1, 2)
    y = torch.relu(torch.nn.ChannelShuffle(3)(norm_of(y, bn1)))
    z = torch.nn.functional.conv2d(y, tensor(second.weight.value), tensor(second.bias.value), 2, 2, 2, 3)
    expected = norm_of(z + torch.nn.functional.avg_pool2d(torch.nn.functional.pad(y, (1, 0, 1, 0)), 2, 2), bn2).numpy()
    assert (fused(x) == expected).all()
