"""Every real checkpoint, tensor by tensor, against the framework that wrote it."""

import numpy as np
import pytest

from npreparam.checkpoints import load, recognise, save
from tests.checkpoints.evaluate import correlate, evaluate
from tests.checkpoints.real import NAMES, real

PICKLED = [name for name in NAMES if not name.endswith(".onnx")]
ONNX = [name for name in NAMES if name.endswith(".onnx")]
NOT_BUILT_BY_TORCH = ("rt4ksr_x2_multibranch.pth", "rvsr_multibranch.ckpt")  # hold objects that weights_only refuses


def flat(tree, path=()):
    import torch
    if torch.is_tensor(tree):
        yield ".".join(path), tree
    elif isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from flat(value, (*path, str(key)))


@pytest.mark.parametrize("name", PICKLED)
def test_against_torch(name):
    path = real(name)
    torch = pytest.importorskip("torch")
    witness = dict(flat(torch.load(path, map_location="cpu", weights_only=name not in NOT_BUILT_BY_TORCH)))
    ours = load(path, entry="")
    assert list(ours) == list(witness)
    for key, tensor in witness.items():
        array = tensor.detach().numpy()
        assert ours[key].dtype == array.dtype
        assert ours[key].shape == array.shape
        assert ours[key].tobytes() == array.tobytes(), key
        assert not ours[key].flags.writeable


@pytest.mark.parametrize("name", PICKLED)
def test_aliases_against_torch(name):
    path = real(name)
    torch = pytest.importorskip("torch")
    groups = {}
    for key, tensor in flat(torch.load(path, map_location="cpu", weights_only=name not in NOT_BUILT_BY_TORCH)):
        groups.setdefault((tensor.data_ptr(), tuple(tensor.shape), tensor.stride()), []).append(key)
    assert sorted(load(path, entry="").aliases()) == sorted(tuple(keys) for keys in groups.values() if len(keys) > 1)


@pytest.mark.parametrize("name", ONNX)
def test_onnx_against_its_raw_bytes(name):
    path = real(name)
    onnx = pytest.importorskip("onnx")
    ours = load(path)
    initializers = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    assert list(ours) == list(initializers)
    for key, tensor in initializers.items():
        assert ours[key].shape == tuple(tensor.dims)
        assert not tensor.raw_data or ours[key].tobytes() == tensor.raw_data


@pytest.mark.parametrize("name", NAMES)
def test_written_again_as_safetensors(name, tmp_path):
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    ours = load(real(name))
    save(tmp_path / "again.safetensors", ours, {"source": name})
    again = load(tmp_path / "again.safetensors")
    assert again.metadata == {"source": name}
    assert list(again) == list(ours)
    assert all(again[key].dtype == ours[key].dtype and again[key].tobytes() == ours[key].tobytes() for key in ours)


# family -> number of blocks; tensors that pass through
EXPECTED = {
    "bsrn_biased_pointwise_must_refuse.pth": ({"bsconv": 37}, 99),
    "ecbsr_adaptive_must_refuse.pt": ({"ecbsr": 6, "conv_bn": 2}, 7),
    "ecbsr_m10c16_x2_multibranch.pt": ({"ecbsr": 12}, 11),
    "ecbsr_m4c8_x2_multibranch.pt": ({"ecbsr": 6}, 5),
    "ecbsr_m4c8_x4_multibranch.pt": ({"ecbsr": 6}, 5),
    "fean_linear_chain.pt": ({"fean": 4}, 72),
    "gtcrn_conv_bn_and_transposed.tar": ({"conv_bn": 22}, 117),
    "gtcrn_transposed_bn.onnx": ({"conv_bn": 8}, 166),
    "repopt_scale_vectors.pth": ({"repopt": 32}, 0),
    "rfb320_conv_bn.onnx": ({"conv_bn": 35}, 34),
    "rfb320_with_postprocessing_conv_bn.onnx": ({"conv_bn": 35}, 34),
    "rfb320_with_postprocessing_simplified_by_authors.onnx": ({}, 112),
    "rt4ksr_x2_multibranch.pth": ({"rrrb": 6}, 15),
    "rvsr_fused_by_authors.pth": ({}, 86),
    "rvsr_multibranch.ckpt": ({"rvsr": 9}, 68),
    "sci_shared_modules_conv_bn.pt": ({"conv_bn": 11}, 6),
    "tdesr_3x1_then_1x3.pth": ({"tdesr": 15}, 6),
}


@pytest.mark.parametrize("name", NAMES)
def test_recognised(name):
    path = real(name)
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    checkpoint = load(path)
    found = recognise(checkpoint)
    families = [block.family for block in found.blocks]
    assert ({family: families.count(family) for family in families}, len(found.passed_through)) == EXPECTED[name]
    assert not found.left_over
    claimed = [tensor for block in found.blocks for tensor in block.tensors]
    assert sorted([*claimed, *found.passed_through]) == sorted(checkpoint)


REFUSED = {"bsrn_biased_pointwise_must_refuse.pth": "the border sees zeros where the bias should be",
           "ecbsr_adaptive_must_refuse.pt": "the branches' weights are computed from the input", "repopt_scale_vectors.pth": "nothing to fuse"}


@pytest.mark.parametrize("name", NAMES)
def test_what_must_be_refused_is_and_nothing_else(name):
    path = real(name)
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    blocks = [block for block in recognise(load(path)).blocks if block.family != "conv_bn"]
    if name in REFUSED:
        assert all(REFUSED[name] in block.refusal for block in blocks)
    else:
        assert not any(block.refusal for block in blocks)


def test_the_recognised_rvsr_computes_what_its_authors_fused(tmp_path):
    """The one twin there is: their float32 fusion is as far from ours in float64 as its own rounding allows."""
    branches, fused = load(real("rvsr_multibranch.ckpt")), load(real("rvsr_fused_by_authors.pth"))
    x = np.random.default_rng(0).standard_normal((1, 16, 5, 6))
    for block in recognise(branches).blocks:
        at = block.fused.removeprefix("network.")
        ours = evaluate(block.expression, branches, x)
        theirs = correlate(x, np.float64(fused[f"{at}.weight"]), (1, 1), 1, 1, 1) + np.float64(fused[f"{at}.bias"])[:, None, None]
        assert np.abs(ours - theirs).max() <= rvsr_bound(block.expression, branches, x)


def rvsr_bound(expression, tensors, x):
    """Their float32 arithmetic rounds each product and sum: n = 32*9 terms per chain, twice, give (2n + 8) u times the sum of magnitudes."""
    magnitudes = {name: np.abs(tensors[name]) for name in tensors}
    return (2 * 32 * 9 + 8) * 2.0**-24 * evaluate(expression, magnitudes, np.abs(x)).max()


def test_the_twin_tells_a_wrong_formula(tmp_path):
    """Planted fault: the chains of RRRB, which have an inner identity, are not those of RVSR."""
    from npreparam.checkpoints import expression as e
    branches, fused = load(real("rvsr_multibranch.ckpt")), load(real("rvsr_fused_by_authors.pth"))
    block = recognise(branches).blocks[0]
    chain, *rest = block.expression.terms
    pad, expand, middle, reduce = chain.steps
    wrong = e.Sum((e.Sequence((pad, expand, e.Sum((middle, e.Pad((-1, -1)))), reduce)), *rest))
    x = np.random.default_rng(0).standard_normal((1, 16, 5, 6))
    at = block.fused.removeprefix("network.")
    theirs = correlate(x, np.float64(fused[f"{at}.weight"]), (1, 1), 1, 1, 1) + np.float64(fused[f"{at}.bias"])[:, None, None]
    assert np.abs(evaluate(wrong, branches, x) - theirs).max() > rvsr_bound(wrong, branches, x)


def test_shared_modules_are_told():
    blocks = recognise(load(real("sci_shared_modules_conv_bn.pt"))).blocks
    same = {block.name: block.same_as for block in blocks if block.same_as}
    assert same["enhance.blocks.0.0"] == "enhance.conv.0"
    assert len(same) == 7


def test_the_optimizer_is_passed_over_and_its_class_stays_a_name():
    passed = dict(load(real("rvsr_multibranch.ckpt")).passed_over)
    assert "neither imported nor called" in passed["torch.optim.adam.Adam"]
    assert "636 tensors beside those of 'state_dict'" in passed["optimizer_states"]


def test_transposed_convolutions_of_gtcrn_are_found_by_shape_or_asked_for():
    found = {block.name: block for block in recognise(load(real("gtcrn_conv_bn_and_transposed.tar"))).blocks}
    transposed = {name for name, block in found.items() if block.expression.steps[0].transposed}
    unsure = {name for name, block in found.items() if "transposed" in block.needed()}
    assert "decoder.de_convs.4.conv" in transposed
    assert all(name.startswith("decoder.de_convs") for name in transposed)
    assert not transposed & unsure
