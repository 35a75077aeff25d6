"""Trees of layers evaluated in rational arithmetic by loop nests, layer after layer; and the magnitudes and roundings their errors depend on."""

from fractions import Fraction

import numpy as np

from npreparam import Window, nn
from npreparam.nn import Crop, Filter2d, ScalarAffine
from npreparam.nn.blocks import OnGrid
from npreparam.nn.blocks.orepa import OREPAConv
from npreparam.nn.containers import Concat
from npreparam.nn.layers import Absolute
from tests import naive

EPS = 0.25


def fractions(array):
    result = np.empty(np.shape(array), object)
    result.ravel()[:] = [Fraction(float(v)) for v in np.ravel(array)]
    return result


def randomize(module, rng, rational=True):
    """Parameters as small dyadic fractions, and statistics whose roots are rational, or any."""
    values = {name: (rng.integers(1, 9, p.shape) * rng.choice([-1, 1], p.shape) / 4).astype(p.dtype) for name, p in module.parameters().items()}
    for name, buffer in module.buffers().items():
        if name.endswith("running_mean"):
            values[name] = (rng.integers(-4, 5, buffer.shape) / 4).astype(buffer.dtype)
        elif name.endswith("running_var"):
            values[name] = (rng.choice([0.75, 2.0, 3.75], buffer.shape) if rational else 10 ** rng.uniform(-2, 1, buffer.shape)).astype(buffer.dtype)
    module.update(values)
    for norm in norms(module):
        norm.eps = EPS
    return module


def norms(module):
    found = [module] if isinstance(module, nn.BatchNorm2d) else []
    return found + [norm for _, child in module.children() for norm in norms(child)]


class Rational:
    """Exact values."""

    number = staticmethod(fractions)

    @staticmethod
    def scale_shift(bn):
        gamma, beta, mean, var, eps = bn
        roots = [rational_root(Fraction(float(v)) + Fraction(eps)) for v in var]
        scale = fractions(gamma) / np.array(roots, object)
        return scale, fractions(beta) - fractions(mean) * scale


class Magnitude:
    """Absolute values in float64."""

    @staticmethod
    def number(array):
        return np.abs(np.asarray(array, np.float64))

    @staticmethod
    def scale_shift(bn):
        gamma, beta, mean, var, eps = (np.abs(np.asarray(v, np.float64)) for v in bn)
        scale = gamma / np.sqrt(var + eps)
        return scale, beta + mean * scale


def rational_root(v):
    return next(root for root in (Fraction(1), Fraction(3, 2), Fraction(2)) if root * root == v)


def value(parameter, kind):
    return None if parameter is None else kind.number(parameter.value)


def evaluate(module, x, kind=Rational):
    """The module in evaluation mode, by its definition."""
    if isinstance(module, nn.BatchNorm2d):
        return batch_norm(module, x, kind)
    if isinstance(module, nn.Sequential):
        for child in module:
            x = evaluate(child, x, kind)
        return x
    if isinstance(module, nn.Sum):
        return sum(evaluate(child, x, kind) for _, child in module.children())
    if isinstance(module, Concat):
        return np.concatenate([evaluate(child, x, kind) for _, child in module.children()], 1)
    return LEAVES[type(module)](module, x, kind)


def batch_norm(module, x, kind):
    scale, shift = kind.scale_shift(module.numbers())
    y = naive.scale_shift(x, scale, shift)
    return naive.pad(y, module.sides, shift) if isinstance(module, nn.BatchNormPad2d) else y


def conv(module, x, kind):
    stride, padding, dilation, groups = module.geometry
    window = Window.of(module.weight.shape[2:], stride, padding, dilation, groups)
    y = naive.conv2d(x, value(module.weight, kind), value(module.bias, kind), window.stride, window.padding, window.dilation, groups)
    return np.maximum(y, 0) if module.relu else y


def scaled(module, x, kind):
    scale = value(module.weight, kind)
    shift = 0 * scale if module.bias is None else value(module.bias, kind)
    return naive.scale_shift(x, np.broadcast_to(scale, x.shape[1]), np.broadcast_to(shift, x.shape[1]))


def average(module, x, kind):
    return naive.avg_pool2d(x, module.window.kernel, module.window.stride, module.window.padding, True)


def orepa(module, x, kind):
    """Branch by branch: chains are evaluated as two convolutions of x, not as products of weights."""
    def own(name):
        return value(getattr(module, f"weight_orepa_{name}"), kind)

    v = value(module.vector, kind)[:, None, :, None, None]
    (s, p, _, groups), channels = module.geometry, x.shape[1]
    def conv(x, w, stride=1, padding=0, groups=groups):
        return naive.conv2d(x, w, None, (stride, stride), ((padding, padding),) * 2, (1, 1), groups)

    own_kernels = [own("origin"), own("avg_conv") * kind.number(module.weight_orepa_avg_avg),
                   own("pfir_conv") * kind.number(module.weight_orepa_prior)[:, None]]
    first = own("1x1_kxk_idconv1") + kind.number(module.id_tensor)
    depthwise, pointwise = own("gconv_dw"), own("gconv_pw")
    in_turn = np.arange(len(pointwise)).reshape(-1, groups).T.ravel()  # row o*groups + g is the o-th output of group g
    spread = conv(x, depthwise, s, p, channels)
    branches = [*(conv(x, kernel, s, p) for kernel in own_kernels), conv(conv(x, first), own("1x1_kxk_conv2"), s, p), conv(x, own("1x1"), s),
                conv(spread, pointwise[in_turn])]
    return sum(branch * scale for branch, scale in zip(branches, v, strict=True))


def on_grid(module, x, kind):
    n, channels, *places = x.shape
    images = x.transpose(0, 2, 3, 1).reshape(-1, channels // (module.grid[0] * module.grid[1]), *module.grid)
    return evaluate(module.inner, images, kind).reshape(n, *places, -1).transpose(0, 3, 1, 2)


def crop(module, x, kind):
    (top, bottom), (left, right) = module.sides
    return x[:, :, top:x.shape[2] - bottom, left:x.shape[3] - right]


LEAVES = {
    nn.Conv2d: conv, nn.Scale: scaled, ScalarAffine: scaled, nn.AvgPool2d: average, Crop: crop,
    OREPAConv: orepa, OnGrid: on_grid,
    nn.Identity: lambda module, x, kind: x,
    Absolute: lambda module, x, kind: np.abs(x),
    nn.ReLU: lambda module, x, kind: np.maximum(x, 0),
    nn.Shift: lambda module, x, kind: naive.scale_shift(x, kind.number(np.ones(x.shape[1])), value(module.bias, kind)),
    nn.Times: lambda module, x, kind: kind.number([module.factor])[0] * x,
    nn.Pad: lambda module, x, kind: naive.pad(x, module.sides, np.zeros(x.shape[1], x.dtype)),
    nn.ChannelShuffle: lambda module, x, kind: x[:, np.arange(x.shape[1]).reshape(module.groups, -1).T.ravel()],
    nn.Slice: lambda module, x, kind: x[:, module.first:module.last],
    Filter2d: lambda module, x, kind: naive.conv2d(x, kind.number(module.kernel), None, (1, 1), ((0, 0), (0, 0)), (1, 1), x.shape[1]),
}


def roundings(module):
    """How many roundings a term passes at most in a float evaluation of the module, layer after layer."""
    if isinstance(module, nn.Sequential):
        return sum(roundings(child) for child in module)
    if isinstance(module, nn.Sum | Concat):
        children = list(module.children())
        return max(roundings(child) for _, child in children) + len(children)
    if isinstance(module, nn.Conv2d):
        return module.weight.value[0].size + 2
    if isinstance(module, OREPAConv):
        columns = module.weight_orepa_1x1.shape[1]
        inner = max(module.weight_orepa_gconv_pw.shape[1] // columns, module.weight_orepa_1x1_kxk_conv2.shape[1])  # sums in the products of weights
        return module.weight_orepa_origin.value[0].size + inner + 10
    if isinstance(module, OnGrid):
        return roundings(module.inner)
    if isinstance(module, Filter2d):
        return module.kernel[0].size + 1
    if isinstance(module, nn.AvgPool2d):
        return int(np.prod(module.window.kernel)) + 1
    return 8 if isinstance(module, nn.BatchNorm2d) else 2


def linear_part(block):
    """A block without its last ReLU, and whether it has one."""
    children = list(block.children()) if isinstance(block, nn.Sequential) else []
    if children and isinstance(children[-1][1], nn.ReLU):
        return nn.Sequential(**{f"part{name}": child for name, child in children[:-1]}), True
    return block, False
