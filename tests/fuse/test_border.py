"""The border rule is an if and only if: what it accepts is exact at every size, what it refuses differs at some size."""

import itertools

import numpy as np
import pytest

from npreparam import FusionError, fuse
from tests import naive
from tests.fuse.maps import evaluate, numbers

SIZES = range(1, 20)
AXIS = [(kernel, stride, (before, after), 2 if kernel == 2 else 1)
        for kernel, stride, before, after in itertools.product((1, 2, 3), (1, 2), (-1, 0, 1), (0, 1))]


def signal_map(rng, geometry, bias):
    """All numbers positive, so that no terms cancel."""
    kernel, stride, padding, dilation = geometry
    return fuse.from_conv(abs(numbers(rng, 1, 1, kernel)), abs(numbers(rng, 1)) if bias else None, stride, (padding,), dilation)


def differs(fused, second, first):
    """Whether the two differ for some length at which the first has an output."""
    rng = np.random.default_rng(7)
    for size in SIZES:
        x = abs(numbers(rng, 1, 1, size))
        if first.output_size((size,)) == (0,):
            continue
        if not np.array_equal(evaluate(fused, x), evaluate(second, evaluate(first, x))):
            return True
    return False


@pytest.mark.parametrize("bias", [False, True])
def test_exhaustively_on_one_axis(bias):
    rng = np.random.default_rng(bias)
    verdicts = {True: 0, False: 0}
    for of_second, of_first in itertools.product(AXIS, AXIS):
        second, first = signal_map(rng, of_second, bias), signal_map(rng, of_first, bias)
        fused = fuse.compose(second, first, border="interior")
        try:
            fuse.compose(second, first)
            exact = True
        except FusionError:
            exact = False
        verdicts[exact] += 1
        assert differs(fused, second, first) != exact, (of_second, of_first)
    assert min(verdicts.values()) > 100


def conv(rng, kernel, padding, bias=False, channels=2):
    return fuse.from_conv(numbers(rng, channels, channels, *kernel), numbers(rng, channels) if bias else None, 1, padding)


def same(fused, second, first, size=(4, 5)):
    x = numbers(np.random.default_rng(9), 2, first.inputs, *size)
    return np.array_equal(evaluate(fused, x), evaluate(second, evaluate(first, x)))


@pytest.mark.parametrize(("of_second", "of_first", "bias", "exact"), [
    (((1, 3), (0, 1)), ((3, 1), (1, 0)), False, True),  # TDESR: each axis by itself
    (((1, 3), (0, 1)), ((3, 1), (1, 0)), True, False),
    (((3, 3), 1), ((1, 1), 0), False, True),  # BSConv
    (((3, 3), 1), ((1, 1), 0), True, False),  # BSRN's biased pointwise
    (((3, 3), 0), ((1, 1), 1), True, True),  # SPAN: padding moved to the input
    (((1, 1), 0), ((3, 3), 1), True, True),
    (((3, 3), 0), ((3, 3), 2), True, True),
    (((3, 3), 1), ((3, 3), 1), False, False),
])
def test_published_chains(of_second, of_first, bias, exact):
    rng = np.random.default_rng(1)
    second, first = conv(rng, *of_second), conv(rng, *of_first, bias)
    assert same(fuse.compose(second, first, border="interior"), second, first) == exact
    if exact:
        assert same(fuse.compose(second, first), second, first)
    else:
        with pytest.raises(FusionError):
            fuse.compose(second, first)


def test_padding_by_the_bias_is_exact():
    """DBB's and ECB's rule, and that any other constant is refused."""
    rng = np.random.default_rng(2)
    second, first = conv(rng, (3, 3), 1, True), conv(rng, (1, 1), 0, True)
    padded = second.padded_with(first.bias)
    assert same(fuse.compose(padded, first), padded, first)
    with pytest.raises(FusionError, match=r"pads channel 0 with .*, where the first continues with"):
        fuse.compose(second.padded_with(first.bias + 1), first)
    following = fuse.pad(2, 1).padded_with(numbers(rng, 2))  # a constant that the first map's own padding gives rise to
    after = fuse.compose(first, following)
    again = fuse.from_conv(np.ones((1, 2, 1, 1)), None, 1, 1).padded_with(evaluate(first, following.outside.reshape(1, 2, 1, 1)).ravel())
    assert same(fuse.compose(again, after), again, after)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 4)])
@pytest.mark.parametrize("groups", [1, 2])
def test_bias_map_is_exact_where_a_bias_is_not(groups, kernel, stride):
    rng = np.random.default_rng(3)
    first = conv(rng, (1, 1), 0, True)
    second = fuse.from_conv(numbers(rng, 4, 2 // groups, *kernel), numbers(rng, 4), stride, ((2, 1), (1, 2)), 1, groups).padded_with(numbers(rng, 2))
    x = numbers(rng, 1, 2, 9, 8)
    without, bias = fuse.bias_map(second, first, (9, 8))
    assert not without.bias.any()
    assert (evaluate(without, x) + bias == evaluate(second, evaluate(first, x))).all()
    zones = {tuple(bias[:, r, c]) for r in range(bias.shape[1]) for c in range(bias.shape[2])}
    assert 1 < len(zones) <= 4 * 4  # 3 elements of padding on each axis, and the interior
    wrong = fuse.compose(second, first, border="interior")
    errors = (evaluate(wrong, x) != evaluate(second, evaluate(first, x))).any((0, 1))
    assert errors.any()
    assert not errors[2:-2, 2:-2].any()  # the interior is exact


def test_refusals_say_what_would_make_it_exact():
    rng = np.random.default_rng(4)
    three, one = conv(rng, (3, 3), 1), conv(rng, (1, 1), 0, True)
    with pytest.raises(FusionError, match=r"pads the height, where the first spans 3 elements or pads; move the padding in front of the first"):
        fuse.compose(three, three)
    with pytest.raises(FusionError, match=r"`bias_map`, or accept a wrong border with border='interior'"):
        fuse.compose(three, one)
    with pytest.raises(FusionError, match="spans 3 elements"):
        fuse.bias_map(three, three, (5, 5))
    with pytest.raises(FusionError, match="fuse that constant first"):
        fuse.bias_map(three, fuse.pad(2, 1).padded_with(np.ones(2)), (5, 5))
    with pytest.raises(ValueError, match=r"`border` \(='exakt'\) must be"):
        fuse.compose(three, one, border="exakt")


def test_naive_padding_is_what_is_meant():
    x = np.ones((1, 1, 1, 1))
    assert (naive.pad(x, ((1, 0), (0, 1)), [5.0])[0, 0] == [[5, 5], [1, 5]]).all()
