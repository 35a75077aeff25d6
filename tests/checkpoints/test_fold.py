"""Folding: parts of a block are the block's, rounding is decided by intervals, then balls, then exact numbers; and what that may cost is bounded."""

from importlib import import_module

import numpy as np
import pytest

from npreparam.checkpoints import _read, _restrict, certify, recognise
from npreparam.checkpoints import expression as e
from npreparam.checkpoints._read import CostlyError, Reader, input_channels
from npreparam.checkpoints._restrict import Pairs, Restriction, can_restrict, common_groups, output_channels, parts_of
from npreparam.checkpoints.fold import fold
from npreparam.checkpoints.transform import fused_shape
from npreparam.fuse import regroup, rounded
from npreparam.fuse.scalars import EXACT, FLOAT64
from tests.checkpoints.states import STATES, state
from tests.tolerances import assert_same_bits

folding = import_module("npreparam.checkpoints.fold")  # the package has a function of that name
FAMILIES = [family for family in STATES if family != "repmlp"]  # no tensor tells the size of its grid
OPTIONS = {"eps": 1e-3, "stride": 1, "identity": True, "transposed": ()}


def block_of(family):
    tensors = {name: values.astype(np.float32) for name, values in state(STATES[family]).items()}
    return recognise(tensors, family, **OPTIONS).blocks[0], tensors


def grouped(groups, outputs=6, inputs=4):
    """A chain with groups, a batch norm and an identity branch: none of the families has it all."""
    rng = np.random.default_rng(groups)
    names = {"a": (inputs, inputs // groups, 1, 1), "b": (inputs, inputs // groups, 3, 3), "c": (inputs, 1, 3, 3)}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in names.items()}
    tensors |= {f"{bn}.{part}": rng.uniform(0.5, 1.5, inputs).astype(np.float32) for bn in ("m", "n") for part in "wbmv"}
    def norm(bn):
        return e.BatchNorm(f"{bn}.m", f"{bn}.v", f"{bn}.w", f"{bn}.b", 1e-5)

    return e.Sequence((e.Sum((
        e.Sequence((e.Pad((1, 1)), e.Conv("a", stride=1, groups=groups), norm("m"), e.Conv("b", stride=1, groups=groups))),
        e.Conv("c", padding=(1, 1), stride=1, groups=inputs), norm("n"), e.Identity())), norm("m"))), tensors


def expressions():
    for family in FAMILIES:
        block, tensors = block_of(family)
        yield pytest.param(block.expression, tensors, id=family)
    for groups in (1, 2, 4):
        yield pytest.param(*grouped(groups), id=f"groups {groups}")


def part_of(expression, tensors, rows, columns):
    restriction = Restriction(tensors)
    return Reader(restriction.of(expression, rows, columns, input_channels(expression, tensors)), restriction.tensors)(EXACT)


def check_part(part, whole, rows, columns):
    """A part's exact numbers are those of the whole, in equal places."""
    part, whole = regroup(part, 1), regroup(whole, 1)
    assert set(part.taps) <= set(whole.taps)
    zero = np.zeros((len(rows), len(columns)), object)
    blocks = dict(zip(part.taps, part.blocks, strict=True))
    for tap, block in zip(whole.taps, whole.blocks, strict=True):
        assert (blocks.get(tap, zero) == block[rows.start:rows.stop, columns.start:columns.stop]).all()
    assert (part.bias == whole.bias[rows.start:rows.stop]).all()


@pytest.mark.parametrize(("expression", "tensors"), list(expressions()))
def test_every_part_is_that_of_the_whole(expression, tensors):
    if not can_restrict(expression):
        pytest.skip("read as a whole")
    whole = Reader(expression, tensors)(EXACT)
    outputs, inputs = output_channels(expression, tensors), input_channels(expression, tensors)
    assert (outputs, inputs) == (whole.outputs, whole.inputs)
    groups = common_groups(expression)
    group = range(outputs // groups), range(inputs // groups)
    for rows, columns in ((range(outputs), range(inputs)), (range(1), range(1)), (range(outputs - 1, outputs), range(inputs - 1, inputs)),
                          (range(1, outputs), range(inputs)), (range(1, outputs - 1), range(inputs // 2, inputs)), group):
        check_part(part_of(expression, tensors, rows, columns), whole, rows, columns)
    with pytest.raises(AssertionError):
        check_part(part_of(expression, tensors, range(1), range(inputs)), whole, range(1, 2), range(inputs))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_parts_and_at_once(family, dtype, monkeypatch):
    block, tensors = block_of(family)
    if block.refusal:
        pytest.skip("refused")
    at_once = fold(block, tensors, dtype)
    monkeypatch.setattr(_restrict, "PART", 15)
    in_parts = fold(block, tensors, dtype)
    assert (len(list(parts_of(block.expression, tensors))) > 1) == can_restrict(block.expression)
    assert (at_once.rounding, in_parts.rounding) == ("correctly rounded",) * 2
    assert_same_bits(at_once.weight, in_parts.weight)
    assert_same_bits(at_once.bias, in_parts.bias)


@pytest.mark.parametrize("family", FAMILIES)
def test_certificates_in_parts_and_at_once(family, monkeypatch):
    """The same measurement and verdicts; bounds as near as other counts of float64's roundings allow."""
    block, tensors = block_of(family)
    if block.refusal:
        pytest.skip("refused")
    folded = fold(block, tensors)
    shapes, wrong = [folded.weight.shape], folded.weight.copy()
    wrong.flat[-1] += 2 * np.spacing(wrong.flat[-1])  # a planted fault, in the last part
    at_once = [certify(block, tensors, weight, folded.bias) for weight in (folded.weight, wrong)]
    monkeypatch.setattr(_restrict, "PART", 15)
    in_parts = [certify(block, tensors, weight, folded.bias) for weight in (folded.weight, wrong)]
    shapes.append(fused_shape(block, tensors))
    assert shapes[0] == shapes[1]
    for whole, parts, count in zip(at_once, in_parts, (0, 1), strict=True):
        assert (whole.wrong, parts.wrong) == (count, count)
        assert (whole.held, parts.held) == (not count, not count)
        assert parts.measured == whole.measured
        assert abs(parts.bound - whole.bound) <= whole.bound * 2.0**-20
    assert certify(block, tensors, folded.weight[1:], folded.bias).wrong == folded.weight[1:].size + folded.bias.size


@pytest.mark.parametrize(("weight", "bias"), [(np.bool_, None), (np.complex64, np.complex64), (np.int32, np.int32), (np.float32, np.float64)])
def test_numbers_of_another_kind_are_all_wrong(weight, bias):
    block, tensors = block_of("repvgg")
    folded = fold(block, tensors)
    assert certify(block, tensors, folded.weight, folded.bias).held
    found = certify(block, tensors, folded.weight.astype(weight), folded.bias.astype(bias or np.float32))
    assert not found.held
    assert found.wrong == folded.weight.size + folded.bias.size


def test_float8_is_no_format_of_fused_numbers():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    block, tensors = block_of("repvgg")
    narrow = [array.astype(ml_dtypes.float8_e4m3fn) for array in (lambda folded: (folded.weight, folded.bias))(fold(block, tensors))]
    assert not certify(block, tensors, *narrow).held


def test_parts_share_what_is_affordable(monkeypatch):
    """A block in float64 that is too costly at once is so in parts."""
    block, tensors = block_of("dbb")
    monkeypatch.setattr(_restrict, "PART", 15)
    monkeypatch.setattr(_read, "OF_BALLS", 400)
    assert len(list(parts_of(block.expression, tensors))) > 1
    assert fold(block, tensors, np.float64).rounding == "float64, then rounded once"
    monkeypatch.setattr(_read, "OF_BALLS", 40_000)
    assert fold(block, tensors, np.float64).rounding == "correctly rounded"


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_parts_keep_groups(groups, monkeypatch):
    expression, tensors = grouped(groups)
    at_once = folding._folded(expression, tensors, np.dtype(np.float32))
    assert at_once.weight.shape == (4, 4 // groups, 3, 3)
    for size in (1, 60, 200):
        monkeypatch.setattr(_restrict, "PART", size)
        in_parts = folding._folded(expression, tensors, np.dtype(np.float32))
        assert_same_bits(in_parts.weight, at_once.weight)
        assert_same_bits(in_parts.bias, at_once.bias)


@pytest.mark.parametrize(("expression", "tensors"), list(expressions()))
def test_pairs_are_those_of_the_whole(expression, tensors):
    """With ==, and each at the price of the parameters behind it alone."""
    if not can_restrict(expression):
        pytest.skip("read as rows")
    reader = Reader(expression, tensors)
    whole = reader(EXACT)
    dense, pairs = regroup(whole, 1), Pairs(reader)
    for row, column in ((0, 0), (whole.outputs - 1, whole.inputs - 1), (0, whole.inputs - 1)):
        before = pairs.products[EXACT]
        pair = pairs.entry(row, column, whole.outputs)(EXACT)
        assert (pair.outputs, pair.inputs, pair.bias[0]) == (1, 1, dense.bias[row])
        for tap, block in zip(dense.taps, dense.blocks, strict=True):
            assert sum(each[0, 0] for at, each in zip(pair.taps, pair.blocks, strict=True) if at == tap) == block[row, column]
        assert pairs.products[EXACT] - before <= max(1, reader.products)
    reader.budget.products[EXACT] = -1
    with pytest.raises(CostlyError):
        pairs.entry(0, 0, whole.outputs)(EXACT)


def test_large_blocks_with_batch_norms_are_correctly_rounded():
    """Some of 37 000 numbers are decided by balls; rows of them would cost more than is affordable."""
    tensors = state(STATES["dbb"].replace("4", "64"), seed=1)
    tensors = {name: values.astype(np.float32) for name, values in tensors.items()}
    block, = recognise(tensors, "dbb", **OPTIONS).blocks
    folded = fold(block, tensors)
    assert folded.weight.shape == (64, 64, 3, 3)
    assert folded.rounding == "correctly rounded"


def test_tiers(monkeypatch):
    """Nothing is read exactly where balls tell the rounding; with no interval and no ball to trust, everything is, with the same result."""
    block, tensors = block_of("dbb")
    kinds = []
    read = Reader.read

    def counted(self, expression, scalars, channels):
        kinds.append(scalars)
        return read(self, expression, scalars, channels)

    monkeypatch.setattr(Reader, "read", counted)
    expected = fold(block, tensors, np.float64)
    assert EXACT not in kinds
    monkeypatch.setattr(rounded, "round_ball", lambda ball, form: None)
    actual = fold(block, tensors, np.float64)
    assert EXACT in kinds
    assert_same_bits(actual.weight, expected.weight)
    assert_same_bits(actual.bias, expected.bias)
    kinds.clear()
    fold(block, tensors, pytest.importorskip("ml_dtypes").bfloat16)
    assert set(kinds) == {FLOAT64}


def test_what_costs_too_much_is_rounded_from_float64(monkeypatch):
    block, tensors = block_of("dbb")
    correct = fold(block, tensors, np.float64)
    monkeypatch.setattr(_read, "OF_BALLS", 10)
    quick = fold(block, tensors, np.float64)
    assert quick.rounding == "float64, then rounded once"
    assert (quick.weight != correct.weight).any()
    assert abs(quick.weight - correct.weight).max() < 2.0**-40


def test_a_wide_chain_without_batch_norms_is_rounded_correctly_to_float64():
    """RVSR's block of 64 channels, which has 28 million products of fractions: they are made of digits, so that the conversions alone count."""
    tensors = {}
    rng = np.random.default_rng(0)
    for name, outputs, inputs, kernel in (("expand", 128, 64, 1), ("fea", 128, 128, 3), ("reduce", 64, 128, 1)):
        for number in ("", "1"):
            tensors[f"m.{name}{number}_conv.weight"] = rng.standard_normal((outputs, inputs, kernel, kernel)).astype(np.float32)
            tensors[f"m.{name}{number}_conv.bias"] = rng.standard_normal(outputs).astype(np.float32)
    for kernel in (1, 3):
        tensors[f"m.res_conv{kernel}x{kernel}.weight"] = rng.standard_normal((64, 64, kernel, kernel)).astype(np.float32)
    block, = recognise(tensors, "rvsr").blocks
    folded = fold(block, tensors, np.float64)
    assert folded.rounding == folding.EXACTLY
    assert certify(block, tensors, folded.weight, folded.bias).wrong == 0
