"""The branch algebra: several branches with batch norm as one convolution."""

from npreparam.fuse.affine import (
    AffineConv,
    average_pool,
    filters,
    from_conv,
    from_conv_transpose,
    identity,
    linear,
    pad,
    pointwise,
    select,
    shuffle,
)
from npreparam.fuse.algebra import add, compose, concat_inputs, concat_outputs, regroup, scale_after, scale_before
from npreparam.fuse.conv_bn import fuse_conv_bn
from npreparam.fuse.cost import is_no_larger
from npreparam.fuse.grid import on_grid
from npreparam.fuse.layout import to_conv2d, to_conv_transpose2d
from npreparam.fuse.repvgg import branch_kernels, fuse_repvgg, identity_kernel
from npreparam.fuse.zones import bias_map

__all__ = ["AffineConv", "add", "average_pool", "bias_map", "branch_kernels", "compose", "concat_inputs", "concat_outputs", "filters",
           "from_conv", "from_conv_transpose", "fuse_conv_bn", "fuse_repvgg", "identity", "identity_kernel", "is_no_larger", "linear", "on_grid",
           "pad", "pointwise", "regroup", "scale_after", "scale_before", "select", "shuffle", "to_conv2d", "to_conv_transpose2d"]
