"""What a user must say of each real checkpoint, and what comes of it: (options of `npreparam fuse`, blocks that are fused, refused).

ONNX files are graphs and are fused as such; they have rows of their own.
"""

EXPECTED = {
    "bsrn_biased_pointwise_must_refuse.pth": ((), 0, 37),
    "ecbsr_adaptive_must_refuse.pt": (("--eps", "1e-5", "--transposed", ""), 2, 6),  # the two that weigh the branches are no part of a block
    "ecbsr_m10c16_x2_multibranch.pt": (("--no-identity",), 12, 0),
    "ecbsr_m4c8_x2_multibranch.pt": (("--no-identity",), 6, 0),
    "ecbsr_m4c8_x4_multibranch.pt": (("--no-identity",), 6, 0),
    "fean_linear_chain.pt": (("--largest",), 4, 0),
    "gtcrn_conv_bn_and_transposed.tar": (("--eps", "1e-5", "--transposed", "decoder.*"), 22, 0),
    "repopt_scale_vectors.pth": ((), 0, 32),
    "rt4ksr_x2_multibranch.pth": ((), 6, 0),
    "rvsr_multibranch.ckpt": ((), 9, 0),
    "sci_shared_modules_conv_bn.pt": (("--eps", "1e-5", "--transposed", ""), 11, 0),
    "tdesr_3x1_then_1x3.pth": (("--largest",), 15, 0),
}
NOTHING_TO_FUSE = {"rvsr_fused_by_authors.pth"}
