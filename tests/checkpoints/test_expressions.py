"""Recognised expressions compute what their authors wrote, in formulas of our own."""

from dataclasses import replace

import numpy as np
import pytest

from npreparam.checkpoints import certify, families, fold, recognise
from npreparam.checkpoints import expression as e
from npreparam.checkpoints.fold import EXACTLY
from tests.checkpoints.evaluate import correlate, evaluate
from tests.checkpoints.states import STATES, state


def bn(tensors, path, x, eps):
    weight, bias, mean, var = (tensors[f"{path}.{name}"].reshape(-1, 1, 1) for name in ("weight", "bias", "running_mean", "running_var"))
    return weight * (x - mean) / np.sqrt(var + eps) + bias


def conv(tensors, path, x, padding=0, groups=1, dilation=1):
    y = correlate(x, tensors[f"{path}.weight"], (padding, padding), 1, dilation, groups)
    return y + tensors[f"{path}.bias"].reshape(-1, 1, 1) if f"{path}.bias" in tensors else y


def conv_bn(tensors, path, norm, x, padding=0, groups=1, eps=1e-5, dilation=1):
    return bn(tensors, norm, conv(tensors, path, x, padding, groups, dilation), eps)


def padded(y, values):
    """y with a border of its own constants, as the authors' pad layers make it."""
    out = np.empty((*y.shape[:2], y.shape[2] + 2, y.shape[3] + 2))
    out[:] = values.reshape(-1, 1, 1)
    out[:, :, 1:-1, 1:-1] = y
    return out


def of_zero(tensors, norm, before=0.0, eps=1e-5):
    """What a batch norm gives for a constant."""
    return tensors[f"{norm}.bias"] + tensors[f"{norm}.weight"] * (before - tensors[f"{norm}.running_mean"]) / np.sqrt(
        tensors[f"{norm}.running_var"] + eps)


def repvgg(t, x):
    return (conv_bn(t, "rbr_dense.conv", "rbr_dense.bn", x, 1) + conv_bn(t, "rbr_1x1.conv", "rbr_1x1.bn", x) + bn(t, "rbr_identity", x, 1e-5))


def mobileone(t, x, at=""):
    dense = sum(conv_bn(t, f"{at}rbr_conv.{i}.conv", f"{at}rbr_conv.{i}.bn", x, 1, 4) for i in range(5) if f"{at}rbr_conv.{i}.conv.weight" in t)
    return dense + conv_bn(t, f"{at}rbr_scale.conv", f"{at}rbr_scale.bn", x, 0, 4) + bn(t, f"{at}rbr_skip", x, 1e-5)


def fastvit(t, x):
    return x + t["layer_scale"] * (mobileone(t, x, "mixer.") - bn(t, "norm.rbr_skip", x, 1e-5))


def dbb(t, x):
    """As its authors compute it: 1x1, batch norm, a border of the batch norm's constants, then KxK or the mean without padding."""
    middle = padded(bn(t, "dbb_1x1_kxk.bn1.bn", x + conv(t, "dbb_1x1_kxk.idconv1", x), 1e-5), of_zero(t, "dbb_1x1_kxk.bn1.bn"))
    mean = padded(conv_bn(t, "dbb_avg.conv", "dbb_avg.bn.bn", x), of_zero(t, "dbb_avg.bn.bn"))
    mean = sum(mean[:, :, i : i + x.shape[2], j : j + x.shape[3]] for i in range(3) for j in range(3)) / 9
    return (conv_bn(t, "dbb_origin.conv", "dbb_origin.bn", x, 1) + conv_bn(t, "dbb_1x1.conv", "dbb_1x1.bn", x)
            + conv_bn(t, "dbb_1x1_kxk.conv2", "dbb_1x1_kxk.bn2", middle) + bn(t, "dbb_avg.avgbn", mean, 1e-5))


def edge(t, path, x):
    y = padded(correlate(x, t[f"{path}.k0"], (0, 0), 1, 1, 1) + t[f"{path}.b0"].reshape(-1, 1, 1), t[f"{path}.b0"])
    return correlate(y, t[f"{path}.scale"] * t[f"{path}.mask"], (0, 0), 1, 1, 4) + t[f"{path}.bias"].reshape(-1, 1, 1)


def ecbsr(t, x):
    y = padded(correlate(x, t["conv1x1_3x3.k0"], (0, 0), 1, 1, 1) + t["conv1x1_3x3.b0"].reshape(-1, 1, 1), t["conv1x1_3x3.b0"])
    return (conv(t, "conv3x3", x, 1) + correlate(y, t["conv1x1_3x3.k1"], (0, 0), 1, 1, 1) + t["conv1x1_3x3.b1"].reshape(-1, 1, 1)
            + sum(edge(t, f"conv1x1_{kind}", x) for kind in ("sbx", "sby", "lpl")))


def rrrb(t, x):
    wide = conv(t, "expand_conv", x)
    return x + conv(t, "reduce_conv", conv(t, "fea_conv", padded(wide, t["expand_conv.bias"])) + wide)


def conv3xc(t, x):
    y = conv(t, "conv.0", np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))))
    return conv(t, "sk", x) + conv(t, "conv.2", conv(t, "conv.1", y))


def repvit(t, x):
    return bn(t, "bn", conv_bn(t, "conv.c", "conv.bn", x, 1, 4) + conv(t, "conv1", x, 0, 4) + x, 1e-5)


def unireplknet(t, x):
    y = conv_bn(t, "dwconv.lk_origin", "dwconv.origin_bn", x, 3, 4) + conv_bn(t, "dwconv.dil_conv_k5_1", "dwconv.dil_bn_k5_1", x, 2, 4)
    return bn(t, "norm", y + conv_bn(t, "dwconv.dil_conv_k3_2", "dwconv.dil_bn_k3_2", x, 2, 4, dilation=2), 1e-5)


def repopt(t, x):
    y = sum(t[f"{scale}.weight"].reshape(-1, 1, 1) * value for scale, value in (
        ("scale_conv", conv(t, "conv", x, 1)), ("scale_1x1", conv(t, "conv_1x1", x)), ("scale_identity", x)))
    return bn(t, "bn", y, 1e-5)


def yolov7(t, x):
    return (conv_bn(t, "rbr_dense.0", "rbr_dense.1", x, 1, eps=1e-3) + conv_bn(t, "rbr_1x1.0", "rbr_1x1.1", x, eps=1e-3)
            + bn(t, "rbr_identity", x, 1e-3))


def acnet(t, x):
    return (conv_bn(t, "square_conv", "square_bn", x, 1) + bn(t, "ver_bn", correlate(x, t["ver_conv.weight"], (1, 0), 1, 1, 1), 1e-5)
            + bn(t, "hor_bn", correlate(x, t["hor_conv.weight"], (0, 1), 1, 1, 1), 1e-5))


def orepa(t, x):
    """The kernel is summed up, then convolved: as its authors train it."""
    scale = t["vector"][:, :, None, None, None]
    point = t["weight_orepa_1x1_kxk_idconv1"] + t["id_tensor"]
    kernel = (scale[0] * t["weight_orepa_origin"] + scale[1] * t["weight_orepa_avg_conv"] * t["weight_orepa_avg_avg"]
              + scale[2] * t["weight_orepa_pfir_conv"] * t["weight_orepa_prior"][:, None]
              + scale[3] * np.einsum("ti,othw->oihw", point[:, :, 0, 0], t["weight_orepa_1x1_kxk_conv2"])
              + scale[5] * np.einsum("oit,ithw->oihw", t["weight_orepa_gconv_pw"].reshape(4, 4, 8), t["weight_orepa_gconv_dw"].reshape(4, 8, 3, 3)))
    kernel[:, :, 1:2, 1:2] += scale[4] * t["weight_orepa_1x1"]
    return bn(t, "bn", correlate(x, kernel, (1, 1), 1, 1, 1), 1e-5)


def reprfn(t, x):
    asymmetric = (correlate(x, t[f"rbr_{size}_branch.weight"], padding, 1, 1, 1) + t[f"rbr_{size}_branch.bias"].reshape(-1, 1, 1)
                  for size, padding in (("3x1", (1, 0)), ("1x3", (0, 1))))
    return (conv(t, "rbr_3x3_branch", x, 1) + conv(t, "rbr_1x1_branch", x) + sum(asymmetric) + x
            + conv(t, "rbr_1x1_3x3_branch_3x3", conv(t, "rbr_1x1_3x3_branch_1x1", x), 1)
            + sum(edge(t, f"rbr_conv1x1_{kind}_branch", x) for kind in ("sbx", "sby", "lpl")))


def syenet(t, x):
    sides = {"conv": (2, 2), "conv1": (0, 0), "conv2": (1, 1), "conv_crossh": (1, 0), "conv_crossv": (0, 1)}
    plain = [correlate(x, t[f"{at}.weight"], sides[at], 1, 1, 1) + t[f"{at}.bias"].reshape(-1, 1, 1) for at in sides]
    normed = [bn(t, f"{at}_bn.1", correlate(x, t[f"{at}_bn.0.weight"], sides[at], 1, 1, 1) + t[f"{at}_bn.0.bias"].reshape(-1, 1, 1), 1e-5)
              for at in sides]
    return conv(t, "conv_out", np.concatenate(plain + normed, 1))


def fean(t, x):
    """The shuffle of eight channels in two groups: 0 4 1 5 2 6 3 7."""
    return x + conv(t, "project", conv(t, "depthwise", conv(t, "expand", x)[:, [0, 4, 1, 5, 2, 6, 3, 7]], 1, 8))


FORMULAS = [orepa, reprfn, syenet, fean, repvgg, mobileone, fastvit, dbb, ecbsr, rrrb, conv3xc, repvit, unireplknet, repopt, yolov7, acnet]


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: formula.__name__)
def test_expressions_compute_what_the_authors_wrote(formula):
    tensors = state(STATES[formula.__name__])
    block = recognise(tensors, identity=False).blocks[0]
    x = np.random.default_rng(1).standard_normal((2, 4, 6, 7))
    ours, theirs = evaluate(block.expression, tensors, x), formula(tensors, x)
    assert np.abs(ours - theirs).max() <= reordering_bound(block.expression, tensors, x)


def reordering_bound(expression, tensors, x):
    """Two orders of the same sums: each of at most 600 operations in a row rounds by 2**-53, relative to the sum of magnitudes."""
    magnitudes = {name: np.abs(value) for name, value in tensors.items()}
    for leaf in e.leaves(expression):
        if isinstance(leaf, e.BatchNorm):
            magnitudes[leaf.mean] = -np.abs(tensors[leaf.mean])  # |x| + |mean|
    return 2 * 600 * 2.0**-53 * np.abs(evaluate(expression, magnitudes, np.abs(x))).max()


def test_the_formulas_tell_a_wrong_border():
    """Planted fault: padding after a biased 1x1 convolution, not before it, differs at the border."""
    tensors = state(STATES["ecbsr"])
    block = recognise(tensors, identity=False).blocks[0]
    terms = list(block.expression.terms)
    pad, first, second = terms[1].steps
    terms[1] = e.Sequence((first, pad, second))
    x = np.random.default_rng(1).standard_normal((2, 4, 6, 7))
    wrong = np.abs(evaluate(e.Sum(tuple(terms)), tensors, x) - ecbsr(tensors, x))
    assert wrong.max() > reordering_bound(block.expression, tensors, x)
    assert wrong[:, :, 1:-1, 1:-1].max() <= reordering_bound(block.expression, tensors, x)


def test_etds_stacks_both_streams():
    tensors = state(STATES["etds"])
    both = np.random.default_rng(1).standard_normal((2, 8, 6, 7))
    x, r = both[:, :5], both[:, 5:]
    theirs = np.concatenate([conv(tensors, "backbone_convs.0", x, 1) + conv(tensors, "add_residual_convs.0", r, 1),
                             conv(tensors, "residual_convs.0", r, 1)], 1)
    expression = recognise(tensors).blocks[0].expression
    assert np.abs(evaluate(expression, tensors, both) - theirs).max() <= reordering_bound(expression, tensors, both)


def test_repmlp_convolves_patches(tmp_path):
    """On 3x3 patches, flattened: fc3 with its batch norm, and the convolutions of the patch as an image."""
    tensors = state(STATES["repmlp"])
    block = recognise(tensors, patterns=repmlp_of("3x3")).blocks[0]
    patches = np.random.default_rng(1).standard_normal((5, 3, 3, 3))
    dense = correlate(patches.reshape(5, 27, 1, 1), tensors["fc3.weight"], (0, 0), 1, 1, 1)
    local = conv_bn(tensors, "repconv1.conv", "repconv1.bn", patches) + conv_bn(tensors, "repconv3.conv", "repconv3.bn", patches, 1)
    theirs = bn(tensors, "fc3_bn", dense, 1e-5) + local.reshape(5, 18, 1, 1)
    ours = evaluate(block.expression, tensors, patches.reshape(5, 27, 1, 1))
    assert np.abs(ours - theirs).max() <= reordering_bound(block.expression, tensors, patches.reshape(5, 27, 1, 1))
    folded = fold(block, tensors)
    assert (folded.weight.shape, folded.rounding) == ((18, 27, 1, 1), EXACTLY)
    assert certify(block, tensors, folded.weight, folded.bias).held


def repmlp_of(size):
    """RepMLP's table with the size of its patches, as a user gives it."""
    table = next(pattern for pattern in families() if pattern.family == "repmlp")
    return (replace(table, family="patches", expression=table.expression.replace("grid(", f"grid(size={size}, ")),)


def test_the_size_of_a_grid_is_asked_for():
    assert recognise(state(STATES["repmlp"])).blocks[0].needed() == ("the grid's size, which a pattern file gives as grid(..., size=7x7)",)
    wrong = recognise(state(STATES["repmlp"]), "patches", patterns=repmlp_of("2x3"))
    assert "branches with 12 and 18 output channels" in "".join(wrong.left_over.values())
