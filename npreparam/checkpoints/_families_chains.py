"""The families' tables, second part: chains and sums of plain convolutions, most of them of super-resolution networks."""

CHAINS = """
[[pattern]]  # Wang et al., EFDN: rep_conv is a branch while training and the whole block afterwards
family = "edbb"
expression = '''sum(conv(rep_conv), conv(conv1x1),
    seq(pad(1), conv(conv1x1_3x3, weight=k0, bias=b0), conv(conv1x1_3x3, weight=k1, bias=b1, pad=0)),
    seq(pad(1), conv(conv1x1_sbx, weight=k0, bias=b0), conv(conv1x1_sbx, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    seq(pad(1), conv(conv1x1_sby, weight=k0, bias=b0), conv(conv1x1_sby, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    seq(pad(1), conv(conv1x1_lpl, weight=k0, bias=b0), conv(conv1x1_lpl, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    skip(when=asked))'''
fused = "rep_conv"
stride = 1
groups = 1

[[pattern]]  # Zhang et al., ECBSR: the 1x1 results are padded with their bias, so the input is padded instead
family = "ecbsr"
expression = '''sum(conv(conv3x3),
    seq(pad(1), conv(conv1x1_3x3, weight=k0, bias=b0), conv(conv1x1_3x3, weight=k1, bias=b1, pad=0)),
    seq(pad(1), conv(conv1x1_sbx, weight=k0, bias=b0), conv(conv1x1_sbx, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    seq(pad(1), conv(conv1x1_sby, weight=k0, bias=b0), conv(conv1x1_sby, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    seq(pad(1), conv(conv1x1_lpl, weight=k0, bias=b0), conv(conv1x1_lpl, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    skip(when=asked))'''
fused = "conv3x3"
stride = 1
groups = 1
refuse_anywhere = { getWeight = "the branches' weights are computed from the input, so the block is not linear" }

[[pattern]]  # huai-chang/RVSR, RepConv
family = "rvsr"
expression = '''sum(seq(pad(1), conv(expand_conv), conv(fea_conv, pad=0), conv(reduce_conv)),
    seq(pad(1), conv(expand1_conv), conv(fea1_conv, pad=0), conv(reduce1_conv)), conv(res_conv3x3), conv(res_conv1x1), identity())'''
fused = "rep_conv"
stride = 1
groups = 1

[[pattern]]  # Du et al., FMEN; RT4KSR's residual block
family = "rrrb"
expression = "sum(identity(), seq(pad(1), conv(expand_conv), sum(conv(fea_conv, pad=0), pad(-1)), conv(reduce_conv)))"
fused = "rep_conv"
stride = 1
groups = 1

[[pattern]]  # Wan et al., SPAN; eval_conv is refreshed only by an evaluation, so the stored one may be stale
family = "conv3xc"
expression = "sum(conv(sk), seq(pad(conv.1), conv(conv.0), conv(conv.1, pad=0), conv(conv.2)))"
fused = "eval_conv"
stride = 1
groups = 1

[[pattern]]  # TDESR: 3x1, then 1x3; each axis is padded once
family = "tdesr"
expression = "seq(conv(0, kernel=3x1), conv(1, kernel=1x3))"
stride = 1
groups = 1

[[pattern]]  # Li et al., BSRN, blueprint separable convolution: pointwise, then depthwise
family = "bsconv"
expression = "seq(conv(pw, groups=1), conv(dw, groups=depthwise))"
stride = 1
refuse_if = { "pw.bias" = "a biased pointwise convolution before a zero-padded one: the border sees zeros where the bias should be" }

[[pattern]]  # Deng et al., RepRFN: the 1x1 before the 3x3 has no bias, so the image between may be padded
family = "reprfn"
expression = '''sum(conv(rbr_3x3_branch), conv(rbr_3x1_branch), conv(rbr_1x3_branch), conv(rbr_1x1_branch),
    seq(conv(rbr_1x1_3x3_branch_1x1), conv(rbr_1x1_3x3_branch_3x3)),
    seq(pad(1), conv(rbr_conv1x1_sbx_branch, weight=k0, bias=b0),
        conv(rbr_conv1x1_sbx_branch, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    seq(pad(1), conv(rbr_conv1x1_sby_branch, weight=k0, bias=b0),
        conv(rbr_conv1x1_sby_branch, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    seq(pad(1), conv(rbr_conv1x1_lpl_branch, weight=k0, bias=b0),
        conv(rbr_conv1x1_lpl_branch, weight=mask, factor=scale, bias=bias, pad=0, groups=depthwise)),
    identity())'''
fused = "rbr_reparam"
stride = 1
groups = 1

[[pattern]]  # Gou et al., SYENet, ConvRep5, ConvRep3 and ConvRepPoint: everything is concatenated before the last 1x1
family = "syenet"
expression = '''seq(cat(conv(conv), conv(conv1)?, conv(conv2)?, conv(conv_crossh)?, conv(conv_crossv)?, conv_bn(conv_bn.0, conv_bn.1),
    conv_bn(conv1_bn.0, conv1_bn.1)?, conv_bn(conv2_bn.0, conv2_bn.1)?, conv_bn(conv_crossh_bn.0, conv_crossh_bn.1)?,
    conv_bn(conv_crossv_bn.0, conv_crossv_bn.1)?), conv(conv_out))'''
eps = 1e-5
stride = 1
groups = 1

[[pattern]]  # Chao et al., ETDS: two streams, of which the second is added to the first, as one of the channels of both
family = "etds"
expression = "cat(split(conv(backbone_convs.{i}), conv(add_residual_convs.{i})), last(conv(residual_convs.{i})))"
fused = "backbone_convs.{i}"
stride = 1
groups = 1

[[pattern]]
family = "etds"
expression = "cat(conv(conv_first), conv(conv_residual_first))"
fused = "conv_first"
stride = 1
groups = 1

[[pattern]]
family = "etds"
expression = "split(conv(conv_last), conv(conv_residual_last))"
fused = "conv_last"
stride = 1
groups = 1

[[pattern]]  # FEAN (Amazingren/NTIRE2025_ESR, team 42), inverted residual block: a shuffle in two groups, as its author has it
family = "fean"
expression = "sum(identity(), seq(conv(expand), shuffle(2), conv(depthwise, groups=depthwise), conv(project)))"
stride = 1
groups = 1

[[pattern]]  # FRR-NET, FMRB
family = "fmrb"
expression = "sum(conv(Conv1), conv(Conv2), conv(Conv3), conv(Conv4), conv(Conv5), conv(Conv6), conv(Sobel.conv_x), conv(Lapla.conv_x))"
stride = 1
groups = "depthwise"
refuse = "the Sobel and Laplacian branches take absolute values, so the block is not linear"
"""
