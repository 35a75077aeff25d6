"""A map on a grid of fixed size is the matrix of what it makes of each element."""

import itertools

import numpy as np
import pytest

from npreparam import FusionError, ShapeError, fuse
from tests.fuse.maps import SCALARS, evaluate, numbers


def random_map(rng, geometry, kind):
    kernel, stride, padding, dilation, groups = geometry
    conv = fuse.from_conv(numbers(rng, 4, 4 // groups, *kernel, kind=kind), numbers(rng, 4, kind=kind), stride, padding, dilation, groups)
    return conv.padded_with(numbers(rng, 4, kind=kind)) if rng.random() < 0.5 else conv


@pytest.mark.parametrize("kind", SCALARS)
def test_matrix_and_map_agree_with_equality(kind):
    """Sizes smaller than the kernel too, padding by a constant, crops, strides, dilation, groups, one axis and two."""
    rng = np.random.default_rng(0)
    kernels = (1, 2, 3) if kind == "float64" else (2,)
    for k, stride, padding, dilation, groups in itertools.product(kernels, (1, 2), (-1, 0, 2), (1, 2), (1, 2, 4)):
        for size in ((5,), (2,), (4, 5)):
            conv = random_map(rng, ((k,) * len(size), stride, padding, dilation, groups), kind)
            out = conv.output_size(size)
            if 0 in out:
                with pytest.raises(ShapeError, match=r"`size` .* leaves no output"):
                    fuse.on_grid(conv, size)
                continue
            x = numbers(rng, 2, 4, *size, kind=kind)
            matrix = fuse.on_grid(conv, size)
            assert (matrix.groups, matrix.rank, matrix.inputs, matrix.outputs) == (groups, 0, 4 * np.prod(size), 4 * np.prod(out))
            y = evaluate(matrix, x.reshape(2, -1)).reshape(2, 4, *out)
            assert (y == evaluate(conv, x)).all()
            y[0, 0].flat[0] += 1  # a planted fault
            assert not (y == evaluate(conv, x)).all()


def test_padding_that_no_convolution_has_is_exact_here():
    """What `compose` refuses at the border, a padded map after a biased one, is exact on one size: RepMLP's point."""
    rng = np.random.default_rng(1)
    first = fuse.pointwise(numbers(rng, 2), numbers(rng, 2))
    second = fuse.from_conv(numbers(rng, 2, 2, 3, 3), None, 1, 1)
    with pytest.raises(FusionError, match="pads channel 0"):
        fuse.compose(second, first)
    x = numbers(rng, 1, 2, 3, 4)
    fused = fuse.compose(fuse.on_grid(second, (3, 4)), fuse.on_grid(first, (3, 4)))
    assert (evaluate(fused, x.reshape(1, -1)).reshape(1, 2, 3, 4) == evaluate(second, evaluate(first.lifted(2), x))).all()


@pytest.mark.parametrize(("conv", "size", "kind", "message"), [
    (fuse.from_conv_transpose(np.ones((1, 1, 2)), stride=2), (3,), FusionError, "a transposed convolution has no matrix here; keep it beside"),
    (fuse.from_conv(np.ones((1, 1, 2))), (3, 3), ShapeError, r"`size` \(=\(3, 3\)\) must have one length for each of the 1 axes"),
])
def test_refusals(conv, size, kind, message):
    with pytest.raises(kind, match=message):
        fuse.on_grid(conv, size)
