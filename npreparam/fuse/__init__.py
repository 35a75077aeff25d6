"""The branch algebra: several branches with batch norm as one convolution."""

from npreparam.fuse.conv_bn import fuse_conv_bn
from npreparam.fuse.repvgg import branch_kernels, fuse_repvgg, identity_kernel

__all__ = ["branch_kernels", "fuse_conv_bn", "fuse_repvgg", "identity_kernel"]
