"""timm as a witness: its models with random statistics, re-parameterized by timm in float32 and in float64, and fused here from the state dict."""

import numpy as np
import pytest

from npreparam.checkpoints import recognise
from npreparam.checkpoints._read import Reader
from npreparam.checkpoints.fold import fold, kernel_of
from npreparam.fuse.scalars import Magnitudes
from tests.tolerances import relative_bound

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
# model: blocks of each family that timm fuses too; in its FastViT it leaves the batch norms of the MLPs, which are fused here
MODELS = {"repvgg_a0": {"timm_repvgg": 22}, "mobileone_s0": {"timm_mobileone": 43}, "repghostnet_050": {"repghost": 32},
          "fastvit_sa12": {"fastvit": 11, "timm_mobileone": 7, "timm_replknet": 3},
          "repvit_m0_9": {"repvit": 23, "conv2d_bn": 60}, "repvit_m1": {"repvit_legacy": 23, "conv2d_bn": 60}}
ROUNDINGS = 32  # in float64, of timm's formulas: at most 8 in a batch norm, two of those, 8 in sums of branches


def random_model(name, seed=0):
    """An untrained model in evaluation mode, its statistics and scales anything."""
    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained=False).eval()
    vectors = [p for p in model.parameters() if p.ndim == 1]
    vectors += [b for key, b in model.named_buffers() if key.endswith(("running_mean", "running_var"))]
    with torch.no_grad():
        for vector in vectors:
            vector.copy_(torch.rand(vector.shape) + 0.5)
    return model


def as_arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def fused_by_timm(model, dtype):
    """timm's RepViT makes its fused layers in the default dtype, whatever that of the model is."""
    from timm.utils import reparameterize_model
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return as_arrays(reparameterize_model(model.to(dtype)))
    finally:
        torch.set_default_dtype(default)


def check(ours, wide, bound):
    """The one checker: float64 knows the exact number to within `bound`, and ours is the float32 nearest to one of those; how many are open."""
    low, high = (wide - bound).astype(np.float32), (wide + bound).astype(np.float32)
    assert (low <= ours).all()
    assert (ours <= high).all()
    return (low != high).sum()


def distance(values, wide, size):
    """Largest error in units in the last place of the number, and of the sum of its terms' magnitudes, in which cancellation does not count."""
    error = np.abs(values - wide)
    return np.array([(error / np.spacing(np.abs(scale).astype(np.float32)).astype(np.float64)).max() for scale in (wide, size)])


@pytest.mark.parametrize("name", MODELS)
def test_timm_fuses_to_within_some_ulps_of_what_is_correctly_rounded_here(name):
    model = random_model(name)
    tensors = as_arrays(model)
    theirs, wide = (fused_by_timm(model, dtype) for dtype in (torch.float32, torch.float64))
    families, count, undecided, worst = [], 0, 0, {"ours": np.zeros(2), "timm": np.zeros(2)}
    for block in recognise(tensors, eps=1e-5, stride=1, identity=True, transposed=()).blocks:
        keys = [f"{block.fused}.{part}" for part in ("weight", "bias")]
        if keys[0] in tensors or keys[0] not in wide:  # timm leaves it, or averages two heads
            continue
        families.append(block.family)
        folded = fold(block, tensors)
        assert folded.rounding == "correctly rounded"
        sizes = Reader(block.expression, tensors)(Magnitudes(2.0**-100))
        for key, ours, size in zip(keys, (folded.weight, folded.bias), (kernel_of(sizes)[0], sizes.bias), strict=True):
            bound = relative_bound(ROUNDINGS, size, np.float64)
            undecided += check(ours, wide[key], bound)
            assert (np.abs(ours - wide[key]) <= np.abs(theirs[key] - wide[key]) + 2 * bound).all()  # at least as close
            count += ours.size
            for who, values in (("ours", ours), ("timm", theirs[key])):
                worst[who] = np.maximum(worst[who], distance(values, wide[key], size))
    print(f"{name:16} {len(families):3} convolutions {count:8} numbers; ulp of the number: ours {worst['ours'][0]:.4f}, timm {worst['timm'][0]:.1f}; "
          f"ulp of its terms: ours {worst['ours'][1]:.4f}, timm {worst['timm'][1]:.2f}; float64 leaves open {undecided}")
    assert {family: families.count(family) for family in families} == MODELS[name]
    assert undecided < count / 2**10
    assert worst["timm"][0] > 1  # not the same computation


def test_the_checker_sees_one_ulp():
    wide = np.array([1 + 2.0**-30, 3.0])
    assert check(np.float32([1, 3]), wide, relative_bound(ROUNDINGS, wide, np.float64)) == 0
    for wrong in ([1 + 2.0**-23, 3], [1, 3 - 2.0**-22], [1 - 2.0**-24, 3]):
        with pytest.raises(AssertionError):
            check(np.float32(wrong), wide, relative_bound(ROUNDINGS, wide, np.float64))
