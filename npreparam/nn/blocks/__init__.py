"""The published re-parameterizable blocks as expressions of layers: trainable, and one convolution after `npreparam.nn.fuse`.

Each is a function that returns a tree of modules. The names of the branches follow the authors' where their layout allows.
"""

from npreparam.nn.blocks.branches import (
    acblock,
    diverse_branch_block,
    lcnet_rep_layer,
    linear_add_block,
    mobileone_block,
    qarepvgg_block,
    rep_mixer,
    repghost_module,
    repvgg_block,
    repvit_dw,
)
from npreparam.nn.blocks.chains import bsconv, conv3xc, conv_rep, ecb, etds_layer, fsmn, rrrb, separable, shuffled_residual
from npreparam.nn.blocks.excite import SqueezeExcite
from npreparam.nn.blocks.large import dilated_reparam_block, large_kernel_block
from npreparam.nn.blocks.orepa import orepa

__all__ = ["SqueezeExcite", "acblock", "bsconv", "conv3xc", "conv_rep", "dilated_reparam_block", "diverse_branch_block", "ecb", "etds_layer",
           "fsmn", "large_kernel_block", "lcnet_rep_layer", "linear_add_block", "mobileone_block", "orepa", "qarepvgg_block", "rep_mixer",
           "repghost_module", "repvgg_block", "repvit_dw", "rrrb", "separable", "shuffled_residual"]
