"""State dicts of one block per family, with the names that the repositories give them and random numbers."""

import numpy as np

# "path:4,2,3,3" is a kernel, "path:bn4" a batch norm, "path!4,1,1" one tensor; "+4" adds a bias
STATES = {
    "repvgg": "rbr_dense.conv:4,4,3,3 rbr_dense.bn:bn4 rbr_1x1.conv:4,4,1,1 rbr_1x1.bn:bn4 rbr_identity:bn4",
    "yolov7": "rbr_dense.0:4,4,3,3 rbr_dense.1:bn4 rbr_1x1.0:4,4,1,1 rbr_1x1.1:bn4 rbr_identity:bn4",
    "qarepvgg": "rbr_dense.conv:4,4,3,3 rbr_dense.bn:bn4 rbr_1x1:4,4,1,1 bn:bn4",
    "super_gradients_qarepvgg": "branch_3x3.conv:4,4,3,3 branch_3x3.bn:bn4 branch_1x1:4,4,1,1+4 alpha!1 post_bn:bn4 rbr_reparam:4,4,3,3+4",
    "fastvit": "layer_scale!4,1,1 norm.rbr_skip:bn4 mixer.rbr_skip:bn4 mixer.rbr_conv.0.conv:4,1,3,3 mixer.rbr_conv.0.bn:bn4 "
               "mixer.rbr_scale.conv:4,1,1,1 mixer.rbr_scale.bn:bn4",
    "mobileone": "rbr_conv.0.conv:4,1,3,3 rbr_conv.0.bn:bn4 rbr_conv.1.conv:4,1,3,3 rbr_conv.1.bn:bn4 rbr_scale.conv:4,1,1,1 rbr_scale.bn:bn4 "
                 "rbr_skip:bn4",
    "pp_lcnetv3": "conv_kxk.0.conv:4,4,3,3 conv_kxk.0.bn:paddle4 conv_kxk.1.conv:4,4,3,3 conv_kxk.1.bn:paddle4 conv_1x1.conv:4,4,1,1 "
                  "conv_1x1.bn:paddle4 identity:paddle4 lab.scale!1 lab.bias!1",
    "timm_mobileone": "conv_kxk.0.conv:4,4,3,3 conv_kxk.0.bn:bn4 conv_scale.conv:4,4,1,1 conv_scale.bn:bn4 identity:bn4",
    "timm_repvgg": "conv_kxk.conv:4,4,3,3 conv_kxk.bn:bn4 conv_1x1.conv:4,4,1,1 conv_1x1.bn:bn4 identity:bn4",
    "mmpretrain_repvgg": "branch_3x3.conv:4,4,3,3 branch_3x3.norm:bn4 branch_1x1.conv:4,4,1,1 branch_1x1.norm:bn4 branch_norm:bn4",
    "mmpretrain_mobileone": "branch_conv_list.0.conv:4,4,3,3 branch_conv_list.0.norm:bn4 branch_scale.conv:4,4,1,1 branch_scale.norm:bn4 "
                            "branch_norm:bn4",
    "repconv": "conv1.conv:4,4,3,3 conv1.bn:bn4 conv2.conv:4,4,1,1 conv2.bn:bn4 alpha!1",
    "replknet": "lkb_origin.conv:4,1,7,7 lkb_origin.bn:bn4 small_conv.conv:4,1,3,3 small_conv.bn:bn4",
    "timm_replknet": "large_conv.conv:4,1,7,7 large_conv.bn:bn4 small_conv.conv:4,1,3,3 small_conv.bn:bn4",
    "unireplknet": "dwconv.lk_origin:4,1,7,7 dwconv.origin_bn:bn4 dwconv.dil_conv_k5_1:4,1,5,5 dwconv.dil_bn_k5_1:bn4 "
                   "dwconv.dil_conv_k3_2:4,1,3,3 dwconv.dil_bn_k3_2:bn4 norm:bn4",
    "acnet": "square_conv:4,4,3,3 square_bn:bn4 ver_conv:4,4,3,1 ver_bn:bn4 hor_conv:4,4,1,3 hor_bn:bn4",
    "dbb": "dbb_origin.conv:4,4,3,3 dbb_origin.bn:bn4 dbb_1x1.conv:4,4,1,1 dbb_1x1.bn:bn4 dbb_1x1_kxk.idconv1:4,4,1,1 dbb_1x1_kxk.bn1.bn:bn4 "
           "dbb_1x1_kxk.conv2:4,4,3,3 dbb_1x1_kxk.bn2:bn4 dbb_avg.conv:4,4,1,1 dbb_avg.bn.bn:bn4 dbb_avg.avgbn:bn4",
    "repopt": "conv:4,4,3,3 scale_conv.weight!4 conv_1x1:4,4,1,1 scale_1x1.weight!4 scale_identity.weight!4 bn:bn4",
    "edbb": "rep_conv:4,4,3,3+4 conv1x1:4,4,1,1+4 conv1x1_3x3.k0!8,4,1,1 conv1x1_3x3.b0!8 conv1x1_3x3.k1!4,8,3,3 conv1x1_3x3.b1!4 EDGES",
    "ecbsr": "conv3x3:4,4,3,3+4 conv1x1_3x3.k0!8,4,1,1 conv1x1_3x3.b0!8 conv1x1_3x3.k1!4,8,3,3 conv1x1_3x3.b1!4 EDGES",
    "rvsr": "expand_conv:8,4,1,1+8 fea_conv:8,8,3,3+8 reduce_conv:4,8,1,1+4 expand1_conv:8,4,1,1+8 fea1_conv:8,8,3,3+8 reduce1_conv:4,8,1,1+4 "
            "res_conv3x3:4,4,3,3+4 res_conv1x1:4,4,1,1+4",
    "rrrb": "expand_conv:8,4,1,1+8 fea_conv:8,8,3,3+8 reduce_conv:4,8,1,1+4",
    "conv3xc": "sk:4,4,1,1+4 conv.0:8,4,1,1+8 conv.1:8,8,3,3+8 conv.2:4,8,1,1+4 eval_conv:4,4,3,3+4",
    "repghost": "cheap_operation.0:4,1,3,3 cheap_operation.1:bn4 fusion_bn.0:bn4",
    "repvit": "conv.c:4,1,3,3 conv.bn:bn4 conv1:4,1,1,1+4 bn:bn4",
    "repvit_legacy": "conv.c:4,1,3,3 conv.bn:bn4 conv1.c:4,1,1,1 conv1.bn:bn4",
    "conv2d_bn": "c:4,4,3,3 bn:bn4",
    "bn_linear": "bn:bn4 l:5,4+5",
    "tdesr": "0:3,4,3,1 1:4,3,1,3+4",
    "orepa": "weight_orepa_origin!4,4,3,3 weight_orepa_avg_conv!4,4,1,1 weight_orepa_avg_avg!3,3 weight_orepa_pfir_conv!4,4,1,1 "
             "weight_orepa_prior!4,3,3 weight_orepa_1x1!4,4,1,1 id_tensor!4,4,1,1 weight_orepa_1x1_kxk_idconv1!4,4,1,1 "
             "weight_orepa_1x1_kxk_conv2!4,4,3,3 weight_orepa_gconv_dw!32,1,3,3 weight_orepa_gconv_pw!4,32,1,1 vector!6,4 bn:bn4",
    "reprfn": "rbr_3x3_branch:4,4,3,3+4 rbr_3x1_branch:4,4,3,1+4 rbr_1x3_branch:4,4,1,3+4 rbr_1x1_branch:4,4,1,1+4 "
              "rbr_1x1_3x3_branch_1x1:8,4,1,1 rbr_1x1_3x3_branch_3x3:4,8,3,3 BRANCHED",
    "syenet": "conv:8,4,5,5+8 conv_bn.0:8,4,5,5+8 conv_bn.1:bn8 conv1:8,4,1,1+8 conv1_bn.0:8,4,1,1+8 conv1_bn.1:bn8 conv2:8,4,3,3+8 "
              "conv2_bn.0:8,4,3,3+8 conv2_bn.1:bn8 conv_crossh:8,4,3,1+8 conv_crossh_bn.0:8,4,3,1+8 conv_crossh_bn.1:bn8 "
              "conv_crossv:8,4,1,3+8 conv_crossv_bn.0:8,4,1,3+8 conv_crossv_bn.1:bn8 conv_out:2,80,1,1+2",
    "repmlp": "fc3:18,27,1,1 fc3_bn:bn18 repconv1.conv:2,3,1,1 repconv1.bn:bn2 repconv3.conv:2,3,3,3 repconv3.bn:bn2",
    "etds": "backbone_convs.0:5,5,3,3+5 add_residual_convs.0:5,3,3,3+5 residual_convs.0:3,3,3,3+3",
    "fean": "expand:8,4,1,1 depthwise:8,1,3,3 project:4,8,1,1",
}


def edges(path, n=4):
    """The three edge filters of an edge-oriented block of n channels."""
    return " ".join(f"{at}.k0!{n},{n},1,1 {at}.b0!{n} {at}.scale!{n},1,1,1 {at}.bias!{n} {at}.mask!{n},1,3,3"
                    for at in map(path.format, ("sbx", "sby", "lpl")))


NORM = ("weight", "bias", "running_mean", "running_var")
PADDLE = ("weight", "bias", "_mean", "_variance")


def state(text, prefix="", seed=0):
    """The tensors that a line of the table above describes."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for word in text.replace("EDGES", edges("conv1x1_{}")).replace("BRANCHED", edges("rbr_conv1x1_{}_branch")).split():
        path, _, kind = (word if "!" in word else word.replace(":", "!:", 1)).partition("!")
        kind, _, bias = kind.removeprefix(":").partition("+")
        if kind.startswith(("bn", "paddle")):
            names, channels = (NORM, int(kind[2:])) if kind.startswith("bn") else (PADDLE, int(kind[6:]))
            tensors |= {f"{prefix}{path}.{name}": rng.uniform(0.5, 1.5, channels) for name in names}
            if names is NORM:
                tensors[f"{prefix}{path}.num_batches_tracked"] = np.array(7)
        else:
            name = path if "!" in word else f"{path}.weight"
            tensors[f"{prefix}{name}"] = rng.standard_normal([int(n) for n in kind.split(",")])
            if bias:
                tensors[f"{prefix}{path}.bias"] = rng.standard_normal(int(bias))
    return tensors
