"""Every layer without a kernel to train is its definition, in arrays and on the tape; and as a map it is the same."""

import numpy as np
import pytest

from npreparam import ArgumentError, ShapeError, nn
from npreparam.fuse.scalars import EXACT
from npreparam.nn import Crop, Filter2d, ScalarAffine
from npreparam.tape import check_grads
from tests.fuse.maps import evaluate as evaluate_map
from tests.nn import trees

F64 = {"dtype": np.float64}
LAYERS = {
    "Scale": lambda: nn.Scale(4, **F64), "Scale with a bias": lambda: nn.Scale(4, bias=True, **F64), "Times": lambda: nn.Times(4, -0.5),
    "AvgPool2d": lambda: nn.AvgPool2d(4, 2), "AvgPool2d padded": lambda: nn.AvgPool2d(4, (2, 4), stride=1, padding=((1, 0), (2, 3))),
    "Pad": lambda: nn.Pad(4, ((1, 0), (2, 3))), "Crop": lambda: Crop(4, ((1, 0), (1, 2))), "ChannelShuffle": lambda: nn.ChannelShuffle(4, 2),
    "Slice": lambda: nn.Slice(4, 1, 3), "Filter2d": lambda: Filter2d(4, np.arange(6.0).reshape(2, 3), **F64),
    "ScalarAffine": lambda: ScalarAffine(4, **F64), "BatchNormPad2d": lambda: nn.BatchNormPad2d(4, ((1, 0), (2, 1)), **F64),
    "Concat": lambda: nn.Concat(nn.Identity(), nn.Times(4, 2.0)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    rng = np.random.default_rng(0)
    layer = trees.randomize(LAYERS[name](), rng)
    for bn in trees.norms(layer):
        bn.running_var = rng.choice([0.75, 3.75], 4)  # roots that are powers of two: nothing rounds
    x = rng.integers(-4, 5, (2, 4, 4, 5)).astype(np.float64)
    expected = trees.evaluate(layer, trees.fractions(x))
    assert (layer(x) == expected).all()
    assert (layer(nn.layers.Tensor(x)).value == expected).all()
    conv = layer.as_affine_conv(EXACT)
    assert (evaluate_map(conv.lifted(2), trees.fractions(x)) == expected).all()
    places = list(layer.parameters())

    def forward(given, *values):
        for place, value in zip(places, values, strict=True):
            setattr(layer, place, value)
        return layer(given, False)

    check_grads(forward, [x, *(p.value for p in layer.parameters().values())])


def test_padding_of_batch_norm_follows_training():
    """The border is the shift by the new running statistics, as in evaluation; the image is normalized by the batch's."""
    rng = np.random.default_rng(0)
    layer, plain = nn.BatchNormPad2d(2, 1, **F64), nn.BatchNorm2d(2, **F64)
    x = rng.standard_normal((2, 2, 3, 3))
    y, inner = layer(x, training=True).value, plain(x, training=True).value
    assert (y[:, :, 1:-1, 1:-1] == inner).all()
    assert (layer.running_mean == plain.running_mean).all()
    shift = EXACT.batch_norm(layer.numbers(), 2)[1]
    assert abs(y[0, :, 0, 0] - [float(s) for s in shift]).max() <= 8 * np.spacing(abs(y[0, :, 0, 0])).max()


@pytest.mark.parametrize(("make", "kind", "message"), [
    (lambda: nn.Slice(4, 2, 2), ArgumentError, r"`first` \(=2\) and `last` \(=2\) must choose at least one of the 4 `channels`"),
    (lambda: nn.ChannelShuffle(4, 3), ShapeError, r"`channels` \(=4\) must be divisible by `groups` \(=3\)"),
    (lambda: nn.Scale(0), ArgumentError, r"`channels` \(=0\) must be positive"),
    (lambda: nn.Pad(2, -1), ArgumentError, r"`padding` \(=-1\) must not be negative"),
    (lambda: nn.Concat(), ArgumentError, "`branches` .* at least one module"),
    (lambda: nn.Sum(a=3), ArgumentError, r"number a \(a int\) must be a Module"),
])
def test_bad_arguments(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
