"""Geometries that break implementations, by name: one row each."""

from __future__ import annotations

from typing import Any

Row = tuple[str, dict[str, Any]]


def _conv(name: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], **attributes: Any) -> Row:
    return name, {"x_shape": x_shape, "w_shape": w_shape, **attributes}


CONVOLUTIONS = (
    _conv("plain", (2, 3, 5, 4), (4, 3, 3, 3)),
    _conv("stride leaves a remainder", (1, 2, 6, 7), (2, 2, 3, 3), stride=(2, 2)),
    _conv("padding before a remainder", (1, 2, 7, 6), (2, 2, 3, 3), stride=(3, 2), padding=((1, 1), (1, 1))),
    _conv("one channel", (1, 1, 4, 5), (1, 1, 2, 2)),
    _conv("groups with stride", (2, 4, 5, 5), (6, 2, 3, 3), groups=2, stride=(2, 2)),
    _conv("groups, stride of H alone", (1, 4, 6, 5), (4, 2, 2, 2), groups=2, stride=(2, 1)),
    _conv("depthwise", (1, 3, 5, 5), (3, 1, 3, 3), groups=3, padding=((1, 1), (1, 1))),
    _conv("depthwise with dilation", (1, 2, 5, 7), (4, 1, 1, 2), groups=2, dilation=(1, 2)),
    _conv("even kernel, SAME_UPPER", (1, 2, 5, 6), (2, 2, 2, 4), padding="SAME_UPPER"),
    _conv("even kernel, SAME_LOWER", (1, 2, 5, 6), (2, 2, 2, 4), padding="SAME_LOWER"),
    _conv("SAME_UPPER with stride", (1, 1, 6, 5), (2, 1, 3, 3), padding="SAME_UPPER", stride=(2, 2)),
    _conv("SAME_LOWER with stride", (1, 1, 6, 5), (2, 1, 3, 4), padding="SAME_LOWER", stride=(2, 3)),
    _conv("SAME_UPPER, stride above kernel", (1, 1, 5, 7), (1, 1, 1, 2), padding="SAME_UPPER", stride=(2, 3)),
    _conv("SAME_UPPER with dilation", (1, 1, 5, 6), (1, 1, 2, 3), padding="SAME_UPPER", dilation=(2, 2)),
    _conv("VALID with stride", (1, 2, 6, 7), (1, 2, 2, 3), padding="VALID", stride=(2, 2)),
    _conv("stride and padding differ on H and W", (1, 2, 6, 9), (2, 2, 3, 1), stride=(1, 2), padding=((1, 1), (0, 0))),
    _conv("stride of W alone", (1, 1, 3, 4), (1, 1, 3, 3), stride=(1, 2), padding=((1, 1), (1, 1))),
    _conv("dilation differs on H and W", (1, 2, 6, 6), (2, 2, 2, 3), dilation=(3, 1)),
    _conv("dilation with stride", (1, 1, 8, 8), (1, 1, 2, 2), dilation=(2, 2), stride=(2, 2)),
    _conv("asymmetric padding", (1, 2, 4, 5), (2, 2, 3, 3), padding=((0, 2), (1, 0))),
    _conv("asymmetric padding with stride", (1, 2, 5, 5), (2, 2, 2, 3), padding=((2, 0), (0, 1)), stride=(2, 2)),
    _conv("kernel larger than the input", (1, 2, 2, 3), (2, 2, 5, 5), padding=((2, 2), (1, 2))),
    _conv("one pixel", (1, 2, 1, 1), (3, 2, 3, 3), padding=((1, 1), (1, 1))),
    _conv("empty batch", (0, 2, 4, 4), (3, 2, 3, 3)),
    _conv("empty batch with groups and stride", (0, 4, 5, 5), (2, 2, 3, 3), groups=2, stride=(2, 2), padding=((1, 1), (1, 1))),
    _conv("stride above kernel, groups", (1, 3, 9, 9), (3, 1, 2, 2), stride=(4, 4), padding=((1, 1), (1, 1)), groups=3),
    _conv("1x1 with stride", (2, 3, 5, 6), (2, 3, 1, 1), stride=(2, 3)),
    _conv("padding larger than the kernel", (1, 1, 2, 2), (1, 1, 1, 2), padding=((2, 2), (2, 1))),
    _conv("tail row", (1, 1, 2, 2), (1, 1, 3, 3), stride=(2, 2), padding=((1, 1), (1, 1))),
    _conv("5x5, dilation of the gradient", (1, 1, 5, 5), (1, 1, 3, 3), dilation=(2, 2)),
    _conv("more channels than a vector", (1, 19, 3, 3), (35, 19, 1, 1)),
    _conv("long row", (1, 1, 2, 37), (2, 1, 2, 3), padding=((0, 0), (1, 1))),
    _conv("3x3, a Winograd candidate", (1, 4, 9, 10), (5, 4, 3, 3), padding=((1, 1), (1, 1))),
)


def _pool(name: str, x_shape: tuple[int, ...], kernel: Any, **attributes: Any) -> Row:
    return name, {"x_shape": x_shape, "kernel": kernel, **attributes}


POOLS = (
    _pool("plain", (2, 3, 4, 6), 2),
    _pool("stride is the kernel", (1, 2, 7, 5), (2, 3)),
    _pool("overlapping windows", (1, 2, 5, 6), (3, 2), stride=1),
    _pool("padding", (1, 2, 5, 5), 3, stride=2, padding=1),
    _pool("stride leaves a remainder", (1, 1, 6, 8), 3, stride=2, padding=1),
    _pool("padding differs on H and W", (1, 1, 4, 5), (2, 3), stride=1, padding=(0, 1)),
    _pool("asymmetric padding", (1, 2, 4, 4), 2, stride=1, padding=((1, 0), (0, 1))),
    _pool("SAME_UPPER", (1, 1, 5, 4), (2, 3), stride=2, padding="SAME_UPPER"),
    _pool("SAME_LOWER", (1, 1, 5, 4), (2, 3), stride=2, padding="SAME_LOWER"),
    _pool("VALID", (1, 1, 5, 7), 2, stride=2, padding="VALID"),
    _pool("global", (2, 2, 4, 4), 4),
    _pool("kernel of one", (1, 2, 3, 3), 1, stride=2),
    _pool("empty batch", (0, 2, 4, 4), 2),
)
BATCHES = tuple((str(shape), {"shape": shape}) for shape in
                ((4, 3, 5, 5), (2, 3), (1, 1, 1, 2), (2, 3, 1, 1), (1, 2, 1, 7), (9, 2), (0, 3, 2, 2), (0, 3), (2, 33, 2, 3), (3, 1, 4, 4)))
MATRICES = tuple((str(shape), {"shape": shape}) for shape in ((2, 3, 4), (1, 1, 1), (0, 3, 2), (3, 33, 1), (1, 17, 33), (5, 2, 2)))
FOLDS = tuple((f"{shape}, groups {groups}" + ", transposed" * transposed, {"w_shape": shape, "groups": groups, "transposed": transposed})
              for shape, groups, transposed in (((3, 2, 3, 3), 1, False), ((4, 2, 1, 1), 2, False), ((6, 1, 3, 3), 6, False), ((2, 4, 2, 2), 1, True),
                                                ((2, 2, 1, 1), 2, True), ((6, 2, 1, 2), 3, True), ((1, 1, 1, 1), 1, False)))
BLOCKS = tuple((f"{shape}, groups {groups}", {"w_shape": shape, "groups": groups})
               for shape, groups in (((3, 3, 3, 3), 1), ((4, 2, 3, 3), 2), ((2, 3, 3, 3), 1), ((4, 1, 3, 3), 4), ((6, 2, 3, 3), 3)))
ELEMENTS = tuple((str(shape), {"shape": shape}) for shape in ((1,), (0,), (3, 5), (2, 3, 2, 2), (67,)))
ROWS = tuple((str(shape), {"shape": shape}) for shape in ((1, 2), (3, 10), (0, 4), (2, 1), (2, 129)))

TABLES: dict[str, tuple[Row, ...]] = {
    **dict.fromkeys(("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d"), CONVOLUTIONS),
    **dict.fromkeys(("avg_pool2d", "max_pool2d"), POOLS),
    **dict.fromkeys(("batch_norm", "batch_norm_grad"), BATCHES),
    "linear": MATRICES, "fuse_conv_bn": FOLDS, "fuse_repvgg": BLOCKS,
    **dict.fromkeys(("log_softmax", "cross_entropy"), ROWS),
    **dict.fromkeys(("softplus", "sigmoid", "tanh", "silu", "bce_with_logits", "normal_rsample", "normal_log_prob", "gaussian_kl"), ELEMENTS),
}
