"""Numba kernels: arrays in, arrays out, **no checks**. Only `npreparam.ops` may call them, after validation.

A kernel module is imported when it is first used, so that importing npreparam does not import Numba.
"""

import importlib
from types import ModuleType

_MODULES = ("accumulate", "activation", "affine", "arithmetic", "batch_norm", "certify", "conv2d", "exact_sums", "im2col", "incomplete_beta",
            "incomplete_gamma", "loss", "matmul", "optim", "pool", "sampling", "special", "student_t", "von_mises")


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
