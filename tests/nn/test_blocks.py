"""Every block: its fusion is an identity in rational arithmetic, and a rounding of it in float; forward, gradients, names."""

import numpy as np
import pytest

from npreparam import ArgumentError, FusionError, ShapeError, fuse, nn
from npreparam.fuse.scalars import EXACT
from npreparam.nn import blocks
from npreparam.tape import check_grads
from tests.fuse.maps import evaluate as evaluate_map
from tests.nn import trees
from tests.tolerances import assert_within, tree_bound

BLOCKS = {
    "ConvBN": (lambda **own: nn.ConvBN(2, 4, 3, padding=1, stride=2, groups=2, **own), 2),
    "repvgg": (lambda **own: blocks.repvgg_block(4, 4, groups=2, **own), 4),
    "repvgg stride 2": (lambda **own: blocks.repvgg_block(2, 4, stride=2, **own), 2),
    "acblock": (lambda **own: blocks.acblock(2, 3, 3, **own), 2),
    "acblock 5 stride 2": (lambda **own: blocks.acblock(2, 2, 5, stride=2, **own), 2),
    "dbb": (lambda **own: blocks.diverse_branch_block(2, 3, **own), 2),
    "dbb groups stride 2": (lambda **own: blocks.diverse_branch_block(4, 4, stride=2, groups=2, **own), 4),
    "mobileone": (lambda **own: blocks.mobileone_block(2, 2, branches=3, **own), 2),
    "mobileone depthwise": (lambda **own: blocks.mobileone_block(3, 3, groups=3, branches=2, stride=2, **own), 3),
    "mobileone pointwise": (lambda **own: blocks.mobileone_block(2, 3, 1, branches=2, **own), 2),
    "qarepvgg": (lambda **own: blocks.qarepvgg_block(2, 2, **own), 2),
    **{f"qarepvgg {variant}": (lambda variant=variant, **own: blocks.qarepvgg_block(2, 2, variant=variant, groups=2, **own), 2)
       for variant in (1, 3, 4, 5)},
    "qarepvgg wider": (lambda **own: blocks.qarepvgg_block(2, 3, variant=4, average=True, stride=2, **own), 2),
    "qarepvgg average": (lambda **own: blocks.qarepvgg_block(2, 2, average=True, **own), 2),
    "qarepvgg alpha": (lambda **own: blocks.qarepvgg_alpha_block(2, 2, **own), 2),
    "qarepvgg alpha only": (lambda **own: blocks.qarepvgg_alpha_block(2, 2, residual=False, **own), 2),
    "grn tail": (lambda **own: nn.Sequential(*list(blocks.grn_tail(3, 2, **own))[1:]), 3),
    "linear add": (lambda **own: blocks.linear_add_block(2, 2, **own), 2),
    "repghost": (lambda **own: blocks.repghost_module(3, **own), 3),
    "repvit": (lambda **own: blocks.repvit_dw(3, **own), 3),
    "rep mixer": (lambda **own: blocks.rep_mixer(3, **own), 3),
    "lcnet": (lambda **own: blocks.lcnet_rep_layer(2, 2, branches=2, **own), 2),
    "replknet": (lambda **own: blocks.large_kernel_block(2, 7, 3, **own), 2),
    "unireplknet 5": (lambda **own: blocks.dilated_reparam_block(2, 5, **own), 2),
    "unireplknet 9": (lambda **own: blocks.dilated_reparam_block(1, 9, **own), 1),
    "ecb": (lambda **own: blocks.ecb(2, 2, **own), 2),
    "edbb": (lambda **own: blocks.ecb(2, 3, pointwise=True, **own), 2),
    "conv3xc": (lambda **own: blocks.conv3xc(2, 2, **own), 2),
    "conv3xc stride 2": (lambda **own: blocks.conv3xc(2, 3, stride=2, **own), 2),
    "rrrb": (lambda **own: blocks.rrrb(2, **own), 2),
    "tdesr": (lambda **own: blocks.separable(2, 3, **own), 2),
    "bsconv": (lambda **own: blocks.bsconv(2, 3, **own), 2),
    "syenet": (lambda **own: blocks.conv_rep(2, 2, **own), 2),
    "etds": (lambda **own: blocks.etds_layer(2, 1, **own), 3),
    "fsmn": (lambda **own: blocks.fsmn(2, 4, **own), 2),
    "fean": (lambda **own: blocks.shuffled_residual(4, **own), 4),
    "syenet 5": (lambda **own: blocks.conv_rep(2, 1, 5, **own), 2),
    "orepa": (lambda **own: blocks.orepa(4, 4, groups=2, stride=2, expand=2, **own), 4),
    "orepa many groups": (lambda **own: blocks.orepa(6, 12, groups=6, expand=2, **own), 6),
    "orepa 5": (lambda **own: blocks.orepa(2, 3, 5, expand=3, **own), 2),
    "orepa 1x1": (lambda **own: blocks.orepa_1x1(2, 3, stride=2, **own), 2),
    "rvsr": (lambda **own: blocks.rvsr_block(2, **own), 2),
    "reprfn": (lambda **own: blocks.rep_rfn(2, 2, **own), 2),
    "reprfn wider": (lambda **own: blocks.rep_rfn(2, 3, **own), 2),
    "pp-yoloe": (lambda **own: blocks.rep_conv_alpha(2, 3, **own), 2),
    "rep cpe": (lambda **own: blocks.rep_cpe(3, 5, **own), 3),
    "lcnet v2": (lambda **own: blocks.lcnetv2_depthwise(3, **own), 3),
    "lcnet v2 stride 2": (lambda **own: blocks.lcnetv2_depthwise(3, stride=2, **own), 3),
    "repmlp": (lambda **own: blocks.repmlp(2, (3, 2), (1, 3, 5), **own), 12),
}


def make(name, seed=0, dtype=np.float64, rational=True):
    function, channels = BLOCKS[name]
    rng = np.random.default_rng(seed)
    return trees.randomize(function(rng=rng, dtype=dtype), rng, rational), channels


def integers(channels, seed=0, size=(5, 6)):
    return np.random.default_rng(seed).integers(-3, 4, (1, channels, *size)).astype(np.float64)


@pytest.mark.parametrize("name", BLOCKS)
def test_fusion_is_an_identity(name):
    """With rational roots: the exact map of the tree, as a convolution, is the tree evaluated layer after layer. Nothing is rounded."""
    block, channels = make(name)
    linear, _ = trees.linear_part(block)
    x = trees.fractions(integers(channels))
    conv = linear.as_affine_conv(EXACT)
    w, b, stride, padding, _, groups = fuse.to_conv2d(conv)
    expected = trees.evaluate(linear, x)
    y = trees.naive.conv2d(x, w, b, stride, padding, (1, 1), groups)
    assert (y == expected).all()
    assert (evaluate_map(conv, x) == expected).all()
    w[0, 0, w.shape[2] // 2, w.shape[3] // 2] += 1  # a planted fault
    assert not (trees.naive.conv2d(x, w, b, stride, padding, (1, 1), groups) == expected).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", BLOCKS)
def test_fused_block_is_one_layer_within_the_bound(name, dtype):
    """The block, the fused layer, and both against each other, with statistics of all kinds."""
    block, channels = make(name, 1, dtype, rational=False)
    before = block.state_dict()
    fused = nn.fuse(block)
    assert isinstance(fused, nn.Conv2d)
    linear, rectified = trees.linear_part(block)
    assert fused.relu == rectified
    x = integers(channels, 2, (6, 7)).astype(dtype)
    magnitude = trees.evaluate(linear, np.abs(x).astype(np.float64), trees.Magnitude)
    exact_roundings = linear.as_affine_conv().roundings
    bound = tree_bound(trees.roundings(linear) + trees.roundings(fused) + exact_roundings + 1, magnitude, dtype)
    assert_within(fused(x), block(x), bound)
    for key, values in block.state_dict().items():
        assert (values == before[key]).all()
    fused.update({"weight": fused.weight.value * dtype(1.01)})
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(fused(x), block(x), bound)


def attribute_setter(block, path):
    owner, *rest = block, *path.split(".")
    for part in rest[:-1]:
        owner = getattr(owner, part)
    return owner, rest[-1]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["acblock", "dbb", "qarepvgg", "linear add", "rep mixer", "lcnet", "ecb", "conv3xc", "rrrb", "syenet", "etds",
                                  "fean", "orepa", "orepa 1x1", "unireplknet 5", "rvsr", "reprfn", "pp-yoloe", "rep cpe", "lcnet v2", "repmlp",
                                  "qarepvgg 1", "qarepvgg 3", "qarepvgg 4", "qarepvgg 5", "qarepvgg average", "qarepvgg alpha", "grn tail",
                                  "orepa many groups"])
def test_gradients(name, training):
    """Those of every parameter; in training BatchNormPad2d holds its running statistics constant, so its block is checked in evaluation."""
    if training and name == "dbb":
        return
    block, channels = make(name, 3)
    x = np.random.default_rng(4).standard_normal((2, channels, 3, 4))
    places = [attribute_setter(block, path) for path in block.parameters()]

    def forward(given, *values):
        for (owner, last), parameter in zip(places, values, strict=True):
            setattr(owner, last, parameter)
        return block(given, training)

    check_grads(forward, [x, *(p.value for p in block.parameters().values())])


def test_squeeze_and_excitation_stays_between():
    rng = np.random.default_rng(0)
    block = trees.randomize(blocks.repvgg_block(4, 4, squeeze=True, rng=rng, dtype=np.float64), rng)
    fused = nn.fuse(block)
    assert [type(part).__name__ for part in fused] == ["Conv2d", "SqueezeExcite", "ReLU"]
    x = integers(4)
    first, gate, _ = block
    bound = tree_bound(trees.roundings(first) * 4, trees.evaluate(first, np.abs(x), trees.Magnitude), np.float64)
    assert_within(next(iter(fused))(x), first(x), bound)
    up = gate(first(x))
    assert (np.maximum(up, 0) == block(x)).all()
    assert fused(x).shape == block(x).shape
    check_grads(lambda given: block(given), [x + 0.25])


def test_the_global_response_stays_in_front():
    """UniRepLKNet's tail: constant, matrix, batch norm and layer scale become one convolution behind it."""
    rng = np.random.default_rng(0)
    block = trees.randomize(blocks.grn_tail(3, 2, rng=rng, dtype=np.float64), rng)
    response, conv = nn.fuse(block)
    assert (type(response), conv.weight.shape) == (blocks.GlobalResponse, (2, 3, 1, 1))
    x = integers(3) + 0.25
    y = response(x)
    norms, gamma = np.sqrt((x**2).sum((2, 3), keepdims=True)), response.gamma.value.reshape(1, -1, 1, 1)
    relative = norms / (norms.mean(1, keepdims=True) + 1e-6)
    assert gamma.all()
    # both sides: a sum of squares, its root, a mean over the channels, and seven more roundings
    bound = tree_bound(2 * (x[0, 0].size + x.shape[1] + 8), np.abs(x) * (1 + np.abs(gamma) * relative), x.dtype)
    assert_within(y, x * (1 + gamma * relative), bound)
    tail = nn.Sequential(*list(block)[1:])
    bound = tree_bound(trees.roundings(tail) + trees.roundings(conv) + 9, trees.evaluate(tail, np.abs(y), trees.Magnitude), x.dtype)
    assert_within(conv(y), block(x), bound)
    check_grads(lambda given, gamma: (setattr(response, "gamma", gamma), response(given))[1], [x, response.gamma.value])


def test_what_is_not_linear_stays_beside_what_is():
    """FRR-NET: six convolutions become one of 7x7, the absolute values stay."""
    rng = np.random.default_rng(0)
    block = trees.randomize(blocks.fmrb(3, rng=rng, dtype=np.float64), rng)
    fused = nn.fuse(block)
    children = dict(fused.children())
    assert [type(child).__name__ for child in children.values()] == ["Conv2d"] + ["Sequential"] * 4
    assert children["conv1"].weight.shape == (3, 1, 7, 7)
    linear = nn.Sum(**{name: child for name, child in block.children() if name.startswith("conv")})
    x = integers(3)
    bound = tree_bound(trees.roundings(linear) + trees.roundings(children["conv1"]) + 9, trees.evaluate(block, np.abs(x), trees.Magnitude), x.dtype)
    assert_within(fused(x), block(x), bound)
    assert (block(x) == trees.evaluate(block, trees.fractions(x)).astype(float)).all()  # integers and quarters: nothing rounds
    with pytest.raises(FusionError, match=r"branch sobel_x.*: Absolute is not linear"):
        nn.fuse_to_one(block)
    check_grads(lambda given: block(given), [rng.standard_normal((1, 3, 4, 5))])  # integers would lie on the kinks


def test_names_are_those_of_the_authors_where_the_layout_allows():
    block = blocks.qarepvgg_block(2, 2, rng=np.random.default_rng(0))
    assert "0.rbr_dense.conv.weight" in block.state_dict()
    assert "lkb_origin.conv.weight" in blocks.large_kernel_block(2, 7, 3, rng=np.random.default_rng(0)).state_dict()


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda rng: blocks.acblock(2, 2, 4, rng=rng), ArgumentError, r"`kernel` \(=4\) must be odd, so that all branches have one centre"),
    (lambda rng: blocks.large_kernel_block(2, 6, 3, rng=rng), ArgumentError, r"`kernel` \(=6\) and `small` \(=3\) must be odd"),
    (lambda rng: blocks.dilated_reparam_block(2, 6, rng=rng), ArgumentError, r"`kernel` \(=6\) must be one of \[5, 7, 9, 11, 13, 15, 17\]"),
    (lambda rng: blocks.conv_rep(2, 2, 7, rng=rng), ArgumentError, r"`kernel` \(=7\) must be 3 or 5"),
    (lambda rng: blocks.rep_cpe(2, 4, rng=rng), ArgumentError, r"`kernel` \(=4\) must be odd"),
    (lambda rng: blocks.repmlp(2, 0, rng=rng), ArgumentError, r"`grid` \(=0\) must be positive"),
    (lambda rng: blocks.OnGrid(nn.Identity(), (2, 3))(np.zeros((1, 8, 1, 1))), ShapeError,
     "`x` has 8 channels, but must have a multiple of 6, the elements of `grid`"),
    (lambda rng: blocks.qarepvgg_block(2, 2, variant=6, rng=rng), ArgumentError, r"`variant` \(=6\) must be one of 1, 2, 3, 4, 5"),
    (lambda rng: blocks.orepa(3, 2, groups=2, rng=rng), ShapeError, r"`in_channels` \(=3\) and `out_channels` \(=2\) must be divisible"),
])
def test_bad_arguments(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.random.default_rng(0))
