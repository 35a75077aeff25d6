"""The published re-parameterizable blocks as expressions of layers: trainable, and one convolution after `npreparam.nn.fuse`.

Each is a function that returns a tree of modules. The names of the branches follow the authors' where their layout allows.
"""

from npreparam.nn.blocks.branches import (
    acblock,
    diverse_branch_block,
    fmrb,
    lcnet_rep_layer,
    lcnetv2_depthwise,
    linear_add_block,
    mobileone_block,
    qarepvgg_alpha_block,
    qarepvgg_block,
    rep_conv_alpha,
    rep_cpe,
    rep_mixer,
    repghost_module,
    repvgg_block,
    repvit_dw,
)
from npreparam.nn.blocks.chains import (
    bsconv,
    conv3xc,
    conv_rep,
    ecb,
    etds_layer,
    fsmn,
    rep_rfn,
    rrrb,
    rvsr_block,
    separable,
    shuffled_residual,
)
from npreparam.nn.blocks.excite import GlobalResponse, SqueezeExcite, grn_tail
from npreparam.nn.blocks.large import dilated_reparam_block, large_kernel_block
from npreparam.nn.blocks.mlp import OnGrid, repmlp
from npreparam.nn.blocks.orepa import orepa, orepa_1x1

__all__ = ["GlobalResponse", "OnGrid", "SqueezeExcite", "acblock", "bsconv", "conv3xc", "conv_rep", "dilated_reparam_block",
           "diverse_branch_block", "ecb", "etds_layer", "fmrb", "fsmn", "grn_tail", "large_kernel_block", "lcnet_rep_layer", "lcnetv2_depthwise",
           "linear_add_block", "mobileone_block", "orepa", "orepa_1x1", "qarepvgg_alpha_block", "qarepvgg_block", "rep_conv_alpha", "rep_cpe",
           "rep_mixer", "rep_rfn", "repghost_module", "repmlp", "repvgg_block", "repvit_dw", "rrrb", "rvsr_block", "separable",
           "shuffled_residual"]
