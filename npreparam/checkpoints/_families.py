"""The families' tables: in the same TOML as a user's own pattern file, so that adding one is adding a paragraph.

Blocks with batch norms are here, those without mostly in `_families_chains`.

Sources: the repositories named in the comments; names and algebra as found there.
"""

from __future__ import annotations

from functools import cache

from npreparam.checkpoints._families_chains import CHAINS
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

[[pattern]]  # its second version adds an average over 3x3 places where x is added, which leaves no tensor either
family = "yolov6_qarepvggv2"
expression = '''seq(sum(conv_bn(rbr_dense.conv, rbr_dense.bn), conv(rbr_1x1), skip(when=same),
    skip(seq(pad(rbr_dense.conv), avgpool(rbr_dense.conv)), when=same)), bn(bn))'''
fused = "rbr_reparam"
eps = 1e-3

[[pattern]]  # cxxgtxy/QARepVGG, version 1: batch norms behind all branches
family = "qarepvgg"
expression = "seq(sum(conv_bn(rbr_dense.conv, rbr_dense.bn), conv_bn(rbr_1x1.conv, rbr_1x1.bn), bn(rbr_identity)), bn(bn))"
fused = "rbr_reparam"
eps = 1e-5

[[pattern]]  # version 5: behind both convolutions; also version 1 where x is not added
family = "qarepvgg"
expression = "seq(sum(conv_bn(rbr_dense.conv, rbr_dense.bn), conv_bn(rbr_1x1.conv, rbr_1x1.bn), skip(when=same)), bn(bn))"
fused = "rbr_reparam"
eps = 1e-5

[[pattern]]  # version 3: behind the 1x1 convolution
family = "qarepvgg"
expression = "seq(sum(conv(rbr_dense), conv_bn(rbr_1x1.conv, rbr_1x1.bn), skip(when=same)), bn(bn))"
fused = "rbr_reparam"
eps = 1e-5

[[pattern]]  # version 4: behind x
family = "qarepvgg"
expression = "seq(sum(conv(rbr_dense), conv(rbr_1x1), bn(rbr_identity)?), bn(bn))"
fused = "rbr_reparam"
eps = 1e-5

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
expression = "seq(sum(conv_bn(branch_3x3.conv, branch_3x3.bn), seq(conv(branch_1x1), scale(alpha)?), skip(when=same)), bn(post_bn)?)"
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

[[pattern]]  # Hu et al., OREPA (JUGGHM/OREPA_CVPR2022): one convolution, whose kernel is a sum of branches
family = "orepa"
expression = '''seq(sum(seq(conv(weight_orepa_origin, weight=self), scale(vector, row=0)),
    seq(conv(weight_orepa_avg_conv, weight=self, shape=weight_orepa_avg_avg), scale(vector, row=1)),
    seq(conv(weight_orepa_pfir_conv, weight=self, shape=weight_orepa_prior), scale(vector, row=2)),
    seq(sum(conv(id_tensor, weight=self, stride=1), conv(weight_orepa_1x1_kxk_idconv1, weight=self, stride=1)),
        conv(weight_orepa_1x1_kxk_conv2, weight=self), scale(vector, row=3)),
    seq(conv(weight_orepa_1x1, weight=self), scale(vector, row=4)),
    seq(conv(weight_orepa_gconv_dw, weight=self, groups=inputs), conv(weight_orepa_gconv_pw, weight=self, stride=1, rows=in_turn),
        scale(vector, row=5))), bn(bn))'''
fused = "orepa_reparam"
eps = 1e-5
groups = "weight_orepa_gconv_dw/weight_orepa_gconv_pw"

[[pattern]]
family = "orepa"
expression = '''seq(sum(seq(conv(weight_or1x1_origin, weight=self), scale(vector, row=0)),
    seq(conv(weight_or1x1_l2i_conv1, weight=self, stride=1), conv(weight_or1x1_l2i_conv2, weight=self), scale(vector, row=1))), bn(bn))'''
fused = "or1x1_reparam"
eps = 1e-5
groups = 1

[[pattern]]  # Ding et al., RepMLP: convolutions of a patch of fixed size, which only its author knows, become part of a matrix
family = "repmlp"
expression = "sum(conv_bn(fc3, fc3_bn), grid(sum(conv_bn(repconv{k}.conv, repconv{k}.bn)+)))"
fused = "fc3"
eps = 1e-5
stride = 1
"""


@cache
def families() -> tuple[Pattern, ...]:
    """All built-in patterns, those with more tensors before those with a part of their names.

    >>> [pattern.fused for pattern in families() if pattern.family == "repvgg"]
    ['rbr_reparam']
    """
    return patterns_of(TABLE + CHAINS)
