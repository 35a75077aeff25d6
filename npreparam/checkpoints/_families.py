"""The families' tables: in the same TOML as a user's own pattern file, so that adding one is adding a paragraph.

Sources: the repositories named in the comments; names and algebra as found there.
"""

from __future__ import annotations

from functools import cache

from npreparam.checkpoints._pattern import Pattern, patterns_of

TABLE = """
[[pattern]]  # cxxgtxy/QARepVGG, version 2
family = "qarepvgg"
expression = "seq(sum(conv_bn(rbr_dense.conv, rbr_dense.bn), conv(rbr_1x1), skip(when=same)), bn(bn))"
fused = "rbr_reparam"
eps = 1e-5

[[pattern]]  # meituan/YOLOv6, QARepVGG
family = "yolov6_qarepvgg"
expression = "seq(sum(conv_bn(rbr_dense.conv, rbr_dense.bn), conv(rbr_1x1), skip(when=same)), bn(bn))"
fused = "rbr_reparam"
eps = 1e-3

[[pattern]]  # Ding et al., RepVGG (DingXiaoH/RepVGG)
family = "repvgg"
expression = "sum(conv_bn(rbr_dense.conv, rbr_dense.bn), conv_bn(rbr_1x1.conv, rbr_1x1.bn)?, bn(rbr_identity)?)"
fused = "rbr_reparam"
eps = 1e-5

[[pattern]]  # meituan/YOLOv6: RepVGG's names with another eps, so that only the user can tell them apart
family = "yolov6"
expression = "sum(conv_bn(rbr_dense.conv, rbr_dense.bn), conv_bn(rbr_1x1.conv, rbr_1x1.bn)?, bn(rbr_identity)?)"
fused = "rbr_reparam"
eps = 1e-3

[[pattern]]  # WongKinYiu/yolov7, RepConv
family = "yolov7"
expression = "sum(conv_bn(rbr_dense.0, rbr_dense.1), conv_bn(rbr_1x1.0, rbr_1x1.1)?, bn(rbr_identity)?)"
fused = "rbr_reparam"
eps = 1e-3

[[pattern]]  # Deci-AI/super-gradients, QARepVGG; its rbr_reparam is a placeholder while training
family = "super_gradients_qarepvgg"
expression = "seq(sum(conv_bn(branch_3x3.conv, branch_3x3.bn), seq(conv(branch_1x1), scale(alpha)?), skip(when=same)), bn(post_bn))"
fused = "rbr_reparam"

[[pattern]]  # FastViT (apple/ml-fastvit) and timm: x + layer_scale*(mixer(x) - norm(x))
family = "fastvit"
expression = '''sum(identity(), seq(sum(conv_bn(mixer.rbr_conv.{i}.conv, mixer.rbr_conv.{i}.bn)+, conv_bn(mixer.rbr_scale.conv, mixer.rbr_scale.bn)?,
    bn(mixer.rbr_skip)?, seq(bn(norm.rbr_skip), scale(number=-1))), scale(layer_scale)))'''
fused = "reparam_conv"
eps = 1e-5
groups = "depthwise"

[[pattern]]
family = "fastvit"
expression = '''sum(identity(), seq(sum(conv_bn(mixer.conv_kxk.{i}.conv, mixer.conv_kxk.{i}.bn)+,
    conv_bn(mixer.conv_scale.conv, mixer.conv_scale.bn)?, bn(mixer.identity)?,
    seq(bn(norm.identity), scale(number=-1))), scale(layer_scale.gamma)))'''
fused = "reparam_conv"
eps = 1e-5
groups = "depthwise"

[[pattern]]  # RepCPE: pe(x) + x
family = "fastvit"
expression = "sum(conv(pe), identity())"
fused = "reparam_conv"
stride = 1
groups = "depthwise"

[[pattern]]  # the same in timm
family = "fastvit"
expression = "sum(conv(pos_enc), identity())"
fused = "reparam_conv"
stride = 1
groups = "depthwise"

[[pattern]]  # Vasu et al., MobileOne (apple/ml-mobileone)
family = "mobileone"
expression = "sum(conv_bn(rbr_conv.{i}.conv, rbr_conv.{i}.bn)+, conv_bn(rbr_scale.conv, rbr_scale.bn)?, bn(rbr_skip)?)"
fused = "reparam_conv"
eps = 1e-5

[[pattern]]  # PaddleOCR, PP-LCNetV3, LearnableRepLayer
family = "pp_lcnetv3"
expression = '''seq(sum(conv_bn(conv_kxk.{i}.conv, conv_kxk.{i}.bn)+, conv_bn(conv_1x1.conv, conv_1x1.bn)?, bn(identity)?),
    scale(lab, weight=scale, bias=bias))'''
fused = "reparam_conv"
eps = 1e-5

[[pattern]]  # huggingface/pytorch-image-models, byobnet
family = "timm_mobileone"
expression = "sum(conv_bn(conv_kxk.{i}.conv, conv_kxk.{i}.bn)+, conv_bn(conv_scale.conv, conv_scale.bn)?, bn(identity)?)"
fused = "reparam_conv"
eps = 1e-5

[[pattern]]
family = "timm_repvgg"
expression = "sum(conv_bn(conv_kxk.conv, conv_kxk.bn), conv_bn(conv_1x1.conv, conv_1x1.bn), bn(identity)?)"
fused = "reparam_conv"
eps = 1e-5

[[pattern]]  # open-mmlab/mmpretrain
family = "mmpretrain_repvgg"
expression = "sum(conv_bn(branch_3x3.conv, branch_3x3.norm), conv_bn(branch_1x1.conv, branch_1x1.norm)?, bn(branch_norm)?)"
fused = "branch_reparam"
eps = 1e-5

[[pattern]]
family = "mmpretrain_mobileone"
expression = "sum(conv_bn(branch_conv_list.{i}.conv, branch_conv_list.{i}.norm)+, conv_bn(branch_scale.conv, branch_scale.norm)?, bn(branch_norm)?)"
fused = "branch_reparam"
eps = 1e-5

[[pattern]]  # ultralytics RepConv, YOLOv9 RepConvN, PP-YOLOE RepVggBlock: conv1 and conv2 follow each other in most other networks
family = "repconv"
expression = "sum(conv_bn(conv1.conv, conv1.bn), seq(conv_bn(conv2.conv, conv2.bn), scale(alpha)?), bn(bn)?)"
fused = "conv"
auto = false

[[pattern]]  # Ding et al., RepLKNet, depthwise; FastViT's large kernels, which may have several outputs per group
family = "replknet"
expression = "sum(conv_bn(lkb_origin.conv, lkb_origin.bn), conv_bn(small_conv.conv, small_conv.bn)?)"
fused = "lkb_reparam"
eps = 1e-5

[[pattern]]
family = "timm_replknet"
expression = "sum(conv_bn(large_conv.conv, large_conv.bn), conv_bn(small_conv.conv, small_conv.bn)?)"
fused = "reparam_conv"
eps = 1e-5

[[pattern]]  # AILab-CVC/UniRepLKNet, DilatedReparamBlock and the batch norm after it
family = "unireplknet"
expression = '''seq(sum(conv_bn(dwconv.lk_origin, dwconv.origin_bn), conv_bn(dwconv.dil_conv_k{k}_{r}, dwconv.dil_bn_k{k}_{r}, dilation={r})*),
    bn(norm)?)'''
fused = "dwconv.lk_origin"
eps = 1e-5
stride = 1
groups = "depthwise"

[[pattern]]  # GRN's constant, the linear layer, its batch norm, the layer scale
family = "unireplknet"
expression = "seq(scale(act.1, bias=beta), conv(pwconv2.0), bn(pwconv2.2), scale(gamma)?)"
fused = "pwconv2.0"
eps = 1e-5
stride = 1

[[pattern]]  # Ding et al., ACNet
family = "acnet"
expression = "sum(conv_bn(square_conv, square_bn), conv_bn(ver_conv, ver_bn), conv_bn(hor_conv, hor_bn))"
fused = "fused_conv"
eps = 1e-5

[[pattern]]  # Ding et al., Diverse Branch Block: the 1x1 results are padded with what they give for zero, so the input is padded instead
family = "dbb"
expression = '''sum(conv_bn(dbb_origin.conv, dbb_origin.bn), conv_bn(dbb_1x1.conv, dbb_1x1.bn)?,
    seq(pad(dbb_1x1_kxk.conv2), either(sum(identity(), conv(dbb_1x1_kxk.idconv1, stride=1)), conv(dbb_1x1_kxk.conv1, stride=1)),
        bn(dbb_1x1_kxk.bn1.bn), conv(dbb_1x1_kxk.conv2, pad=0), bn(dbb_1x1_kxk.bn2))?,
    seq(pad(dbb_origin.conv), conv_bn(dbb_avg.conv, dbb_avg.bn.bn, stride=1)?, avgpool(dbb_origin.conv), bn(dbb_avg.avgbn))?)'''
fused = "dbb_reparam"
eps = 1e-5

[[pattern]]  # DingXiaoH/RepOptimizers, the searching model
family = "repopt"
expression = '''seq(sum(seq(conv(conv), scale(scale_conv, weight=weight)), seq(conv(conv_1x1), scale(scale_1x1, weight=weight)),
    scale(scale_identity, weight=weight)?), bn(bn))'''
fused = "conv"
eps = 1e-5

[[pattern]]  # the result of the search alone
family = "repopt"
expression = "sum(scale(cheap_operation.1, weight=weight), scale(fusion_scale, weight=weight))"
fused = "cheap_operation.0"
refuse = "the constant scales of a RepOptimizer, without the kernels they scale: there is nothing to fuse"

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

[[pattern]]  # ChengpengChen/RepGhost
family = "repghost"
expression = "sum(conv_bn(cheap_operation.0, cheap_operation.1), bn(fusion_bn.{i})+)"
fused = "cheap_operation"
eps = 1e-5
stride = 1
groups = "depthwise"

[[pattern]]  # THU-MIG/RepViT, RepVGGDW
family = "repvit"
expression = "seq(sum(conv_bn(conv.c, conv.bn), conv(conv1), identity()), bn(bn))"
eps = 1e-5
stride = 1
groups = "depthwise"

[[pattern]]  # RepViT-M1 to M3, and timm's of that name
family = "repvit_legacy"
expression = "sum(conv_bn(conv.c, conv.bn), conv_bn(conv1.c, conv1.bn, kernel=1x1), identity())"
eps = 1e-5
stride = 1
groups = "depthwise"

[[pattern]]  # Conv2d_BN of LeViT, RepViT and others
family = "conv2d_bn"
expression = "conv_bn(c, bn, pad=any)"
eps = 1e-5

[[pattern]]  # BN_Linear of the same
family = "bn_linear"
expression = "seq(bn(bn), conv(l))"
fused = "l"
eps = 1e-5
stride = 1

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

[[pattern]]  # FRR-NET, FMRB
family = "fmrb"
expression = "sum(conv(Conv1), conv(Conv2), conv(Conv3), conv(Conv4), conv(Conv5), conv(Conv6), conv(Sobel.conv_x), conv(Lapla.conv_x))"
stride = 1
groups = "depthwise"
refuse = "the Sobel and Laplacian branches take absolute values, so the block is not linear"
"""


@cache
def families() -> tuple[Pattern, ...]:
    """All built-in patterns, those with more tensors before those with a part of their names."""
    return patterns_of(TABLE)
