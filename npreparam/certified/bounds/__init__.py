"""How far an honest implementation of a declared arithmetic may be from the exact result.

Each function returns a float64 array B with |implementation - exact| <= B for every implementation of the `Profile`, and says by which
theorem. B itself is computed in floating point, rounded upwards. `profile` is a Profile, the name of a ready-made one (`PROFILES`), or None: the
usual one for the dtype of the first operand. Compare with the exact result in float64 (`certified` with out_dtype=numpy.float64): one that is
rounded to the judged format adds its own half ulp.
"""

from npreparam.certified.bounds.batch_norm import batch_norm_eval_bound, batch_norm_train_bound, moments_bounds, running_bounds
from npreparam.certified.bounds.batch_norm_grad import batch_norm_grad_bound
from npreparam.certified.bounds.conv2d import conv2d_bound, conv2d_input_grad_bound, conv2d_weight_grad_bound, conv_transpose2d_bound
from npreparam.certified.bounds.dot import dot_bound, linear_bound, matmul_bound
from npreparam.certified.bounds.exactness import is_order_free
from npreparam.certified.bounds.functions import sigmoid_bound, silu_bound, softplus_bound, tanh_bound
from npreparam.certified.bounds.fuse import branches_bound, fuse_conv_bn_bound, fuse_repvgg_bound, fusion_difference_bound
from npreparam.certified.bounds.loss import bce_with_logits_bound, cross_entropy_bound, log_softmax_bound
from npreparam.certified.bounds.pool import avg_pool2d_bound
from npreparam.certified.bounds.profile import (
    BFLOAT16_FLOAT32,
    FFT_FLOAT32,
    FLOAT16_FLOAT16,
    FLOAT16_FLOAT32,
    FLOAT32,
    FLOAT64,
    PROFILES,
    TF32,
    WINOGRAD_F2_3,
    WINOGRAD_F4_3,
    WINOGRAD_F6_3,
    Profile,
    profile_named,
)
from npreparam.certified.bounds.reduce import mean_bound, sum_bound
from npreparam.certified.bounds.sampling import gaussian_kl_bound, normal_log_prob_bound, normal_rsample_bound
from npreparam.certified.bounds.statistical import LikelyProfile, failure_probability, likely

__all__ = ["BFLOAT16_FLOAT32", "FFT_FLOAT32", "FLOAT16_FLOAT16", "FLOAT16_FLOAT32", "FLOAT32", "FLOAT64", "PROFILES", "TF32", "WINOGRAD_F2_3",
           "WINOGRAD_F4_3", "WINOGRAD_F6_3", "LikelyProfile", "Profile", "avg_pool2d_bound", "batch_norm_eval_bound", "batch_norm_grad_bound",
           "batch_norm_train_bound", "bce_with_logits_bound", "branches_bound", "conv2d_bound", "conv2d_input_grad_bound",
           "conv2d_weight_grad_bound", "conv_transpose2d_bound", "cross_entropy_bound", "dot_bound", "failure_probability", "fuse_conv_bn_bound",
           "fuse_repvgg_bound", "fusion_difference_bound", "gaussian_kl_bound", "is_order_free", "likely", "linear_bound", "log_softmax_bound",
           "matmul_bound", "mean_bound", "moments_bounds", "normal_log_prob_bound", "normal_rsample_bound", "profile_named", "running_bounds",
           "sigmoid_bound", "silu_bound", "softplus_bound", "sum_bound", "tanh_bound"]
