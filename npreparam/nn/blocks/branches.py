"""Blocks that add up parallel branches, most of them with batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.nn.blocks.excite import SqueezeExcite
from npreparam.nn.blocks.filters import LAPLACE, SOBEL_X
from npreparam.nn.channels import AvgPool2d, BatchNormPad2d, ScalarAffine, Scale, Times
from npreparam.nn.containers import Identity, Sequential, Sum
from npreparam.nn.layers import Absolute, BatchNorm2d, Conv2d, ReLU
from npreparam.nn.module import Module
from npreparam.nn.repvgg import ConvBN

# QARepVGG's variants: whether batch norms are behind the 3x3 convolution, the 1x1 convolution, and x
NORMED = {1: (True, True, True), 2: (True, False, False), 3: (False, True, False), 4: (False, False, True), 5: (True, True, False)}


def _odd(kernel: int) -> int:
    """Padding that keeps the size."""
    if kernel % 2 == 0:
        raise ArgumentError(f"`kernel` (={kernel}) must be odd, so that all branches have one centre")
    return kernel // 2


def _skip(in_channels: int, out_channels: int, stride: int, dtype: Any) -> dict[str, Module]:
    """A batch norm branch, where input and output have the same shape."""
    return {"skip": BatchNorm2d(out_channels, dtype=dtype)} if in_channels == out_channels and stride == 1 else {}


def repvgg_block(in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1, squeeze: bool = False, rng: np.random.Generator,
                 dtype: Any = np.float32) -> Sequential:
    """relu(se(bn(conv3x3 x) + bn(conv1x1 x) + bn(x))); `RepVGGBlock` is the same under the names of the authors' checkpoints.

    Source: Ding et al., arXiv 2101.03697, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(repvgg_block(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    return mobileone_block(in_channels, out_channels, branches=1, stride=stride, groups=groups, squeeze=squeeze, rng=rng, dtype=dtype)


def mobileone_block(in_channels: int, out_channels: int, kernel: int = 3, *, branches: int = 4, stride: int = 1, groups: int = 1,
                    squeeze: bool = False, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """relu(se(several bn(conv kxk x) + bn(conv1x1 x) + bn(x))): the 1x1 branch where k > 1, bn(x) where the shape stays.

    Source: Vasu et al., MobileOne, arXiv 2206.04040, section 3.2.

    >>> from npreparam.nn import fuse
    >>> [type(part).__name__ for part in fuse(mobileone_block(2, 4, squeeze=True, rng=np.random.default_rng(0)))]
    ['Conv2d', 'SqueezeExcite', 'ReLU']
    """
    own: dict[str, Any] = {"stride": stride, "groups": groups, "rng": rng, "dtype": dtype}
    parts: dict[str, Module] = {f"conv{i}": ConvBN(in_channels, out_channels, kernel, padding=_odd(kernel), **own) for i in range(branches)}
    if kernel > 1:
        parts["scale"] = ConvBN(in_channels, out_channels, 1, **own)
    gate = [SqueezeExcite(out_channels, rng=rng, dtype=dtype)] if squeeze else []
    return Sequential(Sum(**parts, **_skip(in_channels, out_channels, stride, dtype)), *gate, ReLU())


def rep_conv_alpha(in_channels: int, out_channels: int, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """bn(conv3x3 x) + alpha*bn(conv1x1 x) with one trained number alpha: the RepVGG block of PP-YOLOE's backbone.

    Source: Xu et al., PP-YOLOE, arXiv 2203.16250; PaddleDetection's RepVggBlock with `alpha`.

    >>> from npreparam.nn import fuse
    >>> fuse(rep_conv_alpha(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    own: dict[str, Any] = {"rng": rng, "dtype": dtype}
    return Sum(conv1=ConvBN(in_channels, out_channels, 3, padding=1, **own),
               conv2=Sequential(ConvBN(in_channels, out_channels, 1, **own), alpha=ScalarAffine(out_channels, bias=False, dtype=dtype)))


def acblock(in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, rng: np.random.Generator,
            dtype: Any = np.float32) -> Sum:
    """bn(conv kxk x) + bn(conv kx1 x) + bn(conv 1xk x).

    Source: Ding et al., ACNet, arXiv 1908.03930, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(acblock(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    own: dict[str, Any] = {"stride": stride, "groups": groups, "rng": rng, "dtype": dtype}
    p = _odd(kernel)
    return Sum(square=ConvBN(in_channels, out_channels, kernel, padding=p, **own),
               ver=ConvBN(in_channels, out_channels, (kernel, 1), padding=(p, 0), **own),
               hor=ConvBN(in_channels, out_channels, (1, kernel), padding=(0, p), **own))


def diverse_branch_block(in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1,
                         rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """bn(conv kxk) + bn(conv1x1) + bn(conv kxk(pad bn(conv1x1 + x))) + bn(average kxk(pad bn(conv1x1))), padded by what bn makes of 0.

    Source: Ding et al., Diverse Branch Block, arXiv 2103.13425, section 3.3.

    >>> from npreparam.nn import fuse
    >>> fuse(diverse_branch_block(2, 4, kernel=5, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 5, 5)
    """
    p, own = _odd(kernel), {"rng": rng, "dtype": dtype, "groups": groups}
    plain: dict[str, Any] = {"bias": False, **own}
    return Sum(
        origin=ConvBN(in_channels, out_channels, kernel, stride=stride, padding=p, **own),
        pointwise=ConvBN(in_channels, out_channels, 1, stride=stride, **own),
        pointwise_kxk=Sequential(
            conv1=Sum(identity=Identity(), conv=Conv2d(in_channels, in_channels, 1, **plain)),
            bn1=BatchNormPad2d(in_channels, p, dtype=dtype),
            conv2=Conv2d(in_channels, out_channels, kernel, stride=stride, **plain), bn2=BatchNorm2d(out_channels, dtype=dtype)),
        average=Sequential(
            conv=Conv2d(in_channels, out_channels, 1, **plain), bn=BatchNormPad2d(out_channels, p, dtype=dtype),
            pool=AvgPool2d(out_channels, kernel, stride=stride), avgbn=BatchNorm2d(out_channels, dtype=dtype)))


def qarepvgg_block(in_channels: int, out_channels: int, *, variant: int = 2, average: bool = False, stride: int = 1, groups: int = 1,
                   rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """relu(bn(conv3x3 x + conv1x1 x + x)), with batch norms also behind some of the branches; the last branch where the shape stays.

    `variant` is that of the authors' code: 1 has batch norms behind all three branches, 2 (the published block) behind the 3x3 convolution, 3
    behind the 1x1 convolution, 4 behind x, 5 behind both convolutions. With `average` the mean of 3x3 places is added where x is, as in YOLOv6's
    second version.

    Source: Chu et al., QARepVGG, arXiv 2212.01593, section 4; its code (cxxgtxy/QARepVGG), and YOLOv6's, for the others.

    >>> from npreparam.nn import fuse
    >>> fuse(qarepvgg_block(2, 2, rng=np.random.default_rng(0))).weight.shape
    (2, 2, 3, 3)
    """
    if variant not in NORMED:
        raise ArgumentError(f"`variant` (={variant!r}) must be one of {', '.join(map(str, NORMED))}")
    own: dict[str, Any] = {"stride": stride, "groups": groups, "rng": rng, "dtype": dtype}
    dense, pointwise, skip = NORMED[variant]
    parts: dict[str, Module] = {
        "rbr_dense": (ConvBN if dense else _plain)(in_channels, out_channels, 3, padding=1, **own),
        "rbr_1x1": (ConvBN if pointwise else _plain)(in_channels, out_channels, 1, **own)}
    if in_channels == out_channels and stride == 1:
        parts["rbr_identity"] = BatchNorm2d(out_channels, dtype=dtype) if skip else Identity()
        parts |= {"rbr_avg": AvgPool2d(out_channels, 3, stride=1, padding=1)} if average else {}
    return Sequential(Sum(**parts), BatchNorm2d(out_channels, dtype=dtype), ReLU())


def _plain(in_channels: int, out_channels: int, kernel: int, **own: Any) -> Conv2d:
    """A convolution without a bias, as those that a batch norm follows."""
    return Conv2d(in_channels, out_channels, kernel, bias=False, **own)


def qarepvgg_alpha_block(in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1, residual: bool = True, rng: np.random.Generator,
                         dtype: Any = np.float32) -> Sequential:
    """relu(bn(bn(conv3x3 x) + alpha*conv1x1 x + x)) with one trained alpha, and a bias in the 1x1 convolution; x where the shape stays.

    Source: super-gradients' QARepVGGBlock with `use_alpha`, and without x with `residual=False` (YOLO-NAS); after Chu et al., arXiv 2212.01593.

    >>> from npreparam.nn import fuse
    >>> fuse(qarepvgg_alpha_block(2, 2, rng=np.random.default_rng(0))).weight.shape
    (2, 2, 3, 3)
    """
    own: dict[str, Any] = {"stride": stride, "groups": groups, "rng": rng, "dtype": dtype}
    same = {"identity": Identity()} if residual and in_channels == out_channels and stride == 1 else {}
    return Sequential(Sum(branch_3x3=ConvBN(in_channels, out_channels, 3, padding=1, **own),
                          scaled=Sequential(branch_1x1=Conv2d(in_channels, out_channels, 1, **own),
                                            alpha=ScalarAffine(out_channels, bias=False, dtype=dtype)), **same),
                      BatchNorm2d(out_channels, dtype=dtype), ReLU())


def linear_add_block(in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1, rng: np.random.Generator,
                     dtype: Any = np.float32) -> Sequential:
    """relu(bn(s3*conv3x3 x + s1*conv1x1 x + s0*x)) with trained scales, as RepOptimizers search their constants; the last where the shape stays.

    Source: Ding et al., Re-parameterizing your optimizers rather than architectures, arXiv 2205.15242, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(linear_add_block(2, 4, stride=2, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    own: dict[str, Any] = {"stride": stride, "groups": groups, "bias": False, "rng": rng, "dtype": dtype}
    same = {"scale_identity": Scale(out_channels, dtype=dtype)} if in_channels == out_channels and stride == 1 else {}
    return Sequential(
        Sum(dense=Sequential(conv=Conv2d(in_channels, out_channels, 3, padding=1, **own), scale=Scale(out_channels, dtype=dtype)),
            pointwise=Sequential(conv=Conv2d(in_channels, out_channels, 1, **own), scale=Scale(out_channels, dtype=dtype)), **same),
        BatchNorm2d(out_channels, dtype=dtype), ReLU())


def repghost_module(channels: int, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """relu(bn(depthwise 3x3 x) + bn(x)): the cheap operation of a RepGhost module.

    Source: Chen et al., RepGhost, arXiv 2211.06088, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(repghost_module(4, rng=np.random.default_rng(0))).weight.shape
    (4, 1, 3, 3)
    """
    return Sequential(Sum(cheap=ConvBN(channels, channels, 3, padding=1, groups=channels, rng=rng, dtype=dtype),
                          fusion=BatchNorm2d(channels, dtype=dtype)), ReLU())


def repvit_dw(channels: int, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """bn(bn(depthwise 3x3 x) + depthwise 1x1 x + x).

    Source: Wang et al., RepViT, arXiv 2307.09283, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(repvit_dw(4, rng=np.random.default_rng(0))).weight.shape
    (4, 1, 3, 3)
    """
    return Sequential(Sum(conv=ConvBN(channels, channels, 3, padding=1, groups=channels, rng=rng, dtype=dtype),
                          conv1=Conv2d(channels, channels, 1, groups=channels, rng=rng, dtype=dtype), identity=Identity()),
                      BatchNorm2d(channels, dtype=dtype))


def rep_mixer(channels: int, kernel: int = 3, *, layer_scale: float = 1e-5, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """x + scale * (mixer(x) - bn(x)), the mixer a depthwise MobileOne block without ReLU.

    Source: Vasu et al., FastViT, arXiv 2303.14189, section 3.2.

    >>> from npreparam.nn import fuse
    >>> fuse(rep_mixer(4, rng=np.random.default_rng(0))).weight.shape
    (4, 1, 3, 3)
    """
    own: dict[str, Any] = {"groups": channels, "rng": rng, "dtype": dtype}
    mixer = Sum(rbr_conv=ConvBN(channels, channels, kernel, padding=_odd(kernel), **own), rbr_scale=ConvBN(channels, channels, 1, **own),
                rbr_skip=BatchNorm2d(channels, dtype=dtype))
    norm = Sequential(rbr_skip=BatchNorm2d(channels, dtype=dtype), minus=Times(channels, -1.0))
    return Sum(identity=Identity(),
               mixed=Sequential(Sum(mixer=mixer, norm=norm), layer_scale=Scale(channels, value=layer_scale, dtype=dtype)))


def rep_cpe(channels: int, kernel: int = 7, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """x + depthwise kxk x: FastViT's conditional positional encoding.

    Source: Vasu et al., FastViT, arXiv 2303.14189, section 3.3.

    >>> from npreparam.nn import fuse
    >>> fuse(rep_cpe(4, rng=np.random.default_rng(0))).weight.shape
    (4, 1, 7, 7)
    """
    return Sum(pe=Conv2d(channels, channels, kernel, padding=_odd(kernel), groups=channels, rng=rng, dtype=dtype), identity=Identity())


def lcnetv2_depthwise(channels: int, kernel: int = 5, *, stride: int = 1, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """bn(depthwise kxk x) + ... + bn(depthwise 3x3 x) + bn(depthwise 1x1 x), the last without stride only.

    Source: PaddleClas's PP-LCNetV2, RepDepthwiseSeparable (no paper).

    >>> from npreparam.nn import fuse
    >>> fuse(lcnetv2_depthwise(4, rng=np.random.default_rng(0))).weight.shape
    (4, 1, 5, 5)
    """
    sizes = range(kernel, 2 if stride > 1 else 0, -2)
    return Sum(**{f"dw_conv{k}": ConvBN(channels, channels, k, stride=stride, padding=_odd(k), groups=channels, rng=rng, dtype=dtype) for k in sizes})


def fmrb(channels: int, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """The sum of depthwise 1x1, 3x3, 5x5, 7x7, 1x3 and 3x1 convolutions of x, and of |depthwise 3x3 x| twice for each of Sobel and Laplace.

    The absolute values are not linear: `npreparam.nn.fuse` makes one 7x7 convolution of the first six and leaves the others beside it. The
    filters are trained, from Sobel's and Laplace's on.

    Source: FMRB of FRR-NET, as its code has it.

    >>> from npreparam.nn import fuse
    >>> [name for name, _ in fuse(fmrb(4, rng=np.random.default_rng(0)), partial=True).children()]
    ['conv1', 'sobel_x', 'sobel_y', 'laplace_x', 'laplace_y']
    """
    own: dict[str, Any] = {"groups": channels, "rng": rng, "dtype": dtype}

    def conv(kernel: tuple[int, int]) -> Conv2d:
        return Conv2d(channels, channels, kernel, padding=(kernel[0] // 2, kernel[1] // 2), **own)

    def edge(mask: Any) -> Sequential:
        filters = np.broadcast_to(np.asarray(mask, dtype), (channels, 1, 3, 3)).copy()
        return Sequential(conv=Conv2d.holding(filters, None, 1, 1, 1, channels), abs=Absolute())

    kernels = [(1, 1), (3, 3), (5, 5), (7, 7), (1, 3), (3, 1)]
    edges = {"sobel_x": SOBEL_X, "sobel_y": SOBEL_X.T, "laplace_x": LAPLACE, "laplace_y": LAPLACE}
    return Sum(**{f"conv{i}": conv(kernel) for i, kernel in enumerate(kernels, 1)}, **{name: edge(mask) for name, mask in edges.items()})


def lcnet_rep_layer(in_channels: int, out_channels: int, kernel: int = 3, *, branches: int = 4, stride: int = 1, groups: int = 1,
                    rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """a*(several bn(conv kxk x) + bn(conv1x1 x) + bn(x)) + c with one trained a and c.

    Source: PaddleOCR's PP-LCNetV3, LearnableRepLayer (no paper).

    >>> from npreparam.nn import fuse
    >>> fuse(lcnet_rep_layer(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    block = mobileone_block(in_channels, out_channels, kernel, branches=branches, stride=stride, groups=groups, rng=rng, dtype=dtype)
    return Sequential(next(iter(block)), lab=ScalarAffine(out_channels, dtype=dtype))
