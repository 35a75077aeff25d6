"""The published RepVGG networks: their parameter counts, from shapes alone, and that what is counted is what is made."""

import tracemalloc

import numpy as np
import pytest

from npreparam import ArgumentError
from npreparam.models import RepVGG, RepVGGSpec, repvgg_net, repvgg_spec
from npreparam.models.repvgg import GROUPED, NETS
from npreparam.nn import count_parameters

# deploy form, millions, cut off after two decimals: arXiv 2101.03697, tables 4 and 5
PUBLISHED = {"A0": 8.30, "A1": 12.78, "A2": 25.49, "B0": 14.33, "B1": 51.82, "B1g2": 41.36, "B1g4": 36.12, "B2": 80.31, "B2g4": 55.77,
             "B3": 110.96, "B3g4": 75.62}


def cut(parameters):
    """Hundredths of a million, which the tables show."""
    return parameters // 10**4


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    assert cut(repvgg_spec(name).parameters()) == round(PUBLISHED[name] * 100)


@pytest.mark.parametrize(("wrong", "name"), [
    (lambda spec: RepVGGSpec(spec.widths, spec.depths, 1), "B1g4"),  # groups forgotten
    (lambda spec: RepVGGSpec((64 * 2, *spec.widths[1:]), spec.depths), "B1"),  # a first stage of 64a
    (lambda spec: RepVGGSpec(spec.widths, (1, 2, 4, 14, 1)), "B1"),  # A's depths
])
def test_the_counts_tell_wrong_shapes(wrong, name):
    """Planted faults."""
    assert cut(wrong(repvgg_spec(name)).parameters()) != round(PUBLISHED[name] * 100)


def test_all_names_and_the_order_of_sizes():
    """Two groups lie between one and four, on exactly half of the blocks."""
    assert len([*NETS, *GROUPED]) == 13
    for name in ("B1", "B2", "B3"):
        one, two, four = (repvgg_spec(name + suffix).parameters() for suffix in ("", "g2", "g4"))
        assert (one - two) * 3 == (one - four) * 2  # halves and quarters of the same blocks
        grouped = [layer.groups for layer in repvgg_spec(f"{name}g4").layers()]
        assert grouped == [1, 1, *[4, 1] * 13]


def test_counting_allocates_nothing():
    tracemalloc.start()
    for name in [*NETS, *GROUPED]:
        repvgg_spec(name).parameters()
        repvgg_spec(name).parameters(deploy=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # the smallest network has 33 MB


@pytest.mark.parametrize("spec", [RepVGGSpec((4, 4, 8), (1, 2, 3), 2), RepVGGSpec((4,), (3,), 4, halve_first=False)])
def test_what_is_counted_is_what_is_made(spec):
    net = RepVGG.of(spec, 5, 3, rng=np.random.default_rng(0), dtype=np.float64)
    assert spec.parameters(5, deploy=False) == count_parameters(net)
    assert spec.parameters(5) == count_parameters(net.fuse())


def test_a0_is_made_and_fused():
    net = repvgg_net("A0", rng=np.random.default_rng(0))
    fused = net.fuse()
    assert count_parameters(net) == repvgg_spec("A0").parameters(deploy=False)
    assert count_parameters(fused) == repvgg_spec("A0").parameters()
    assert [block.stride for block in net.blocks].count(2) == 5  # 224 -> 7
    assert fused(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 1000)


@pytest.mark.parametrize("name", ["B4", "A0g2", "b1", ""])
def test_unknown_names(name):
    with pytest.raises(ArgumentError, match=r"`name` \(=.*\) must be one of A0, A1, .*B3g4"):
        repvgg_spec(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_timm_has_as_many(name):
    """With branches, of shapes alone; timm has no g2 forms."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    if f"repvgg_{name.lower()}" not in timm.list_models("repvgg*"):
        pytest.skip("not one of timm's")
    with torch.device("meta"):
        model = timm.create_model(f"repvgg_{name.lower()}", pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == repvgg_spec(name).parameters(deploy=False)
