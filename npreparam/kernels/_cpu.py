"""The register tile for the CPU that Numba compiles for.

A vector of the intermediate code is always 64 bytes (16 float32 or 8 float64); LLVM splits it into the registers the CPU has. Only the
number of accumulators follows the CPU: 12 AVX-512 registers, else 12 of 16 AVX2 registers (which also suits SSE and NEON).
No result depends on it: each output element is one chain of fused multiply-adds over the taps, whatever tile it is computed in.
"""

from __future__ import annotations

from llvmlite import binding
from numba.core import config

VECTOR_BYTES = 64


def _has_avx512() -> bool:
    if config.CPU_NAME == "generic" or config.CPU_FEATURES:
        return "+avx512f" in (config.CPU_FEATURES or "")
    return bool(binding.get_host_cpu_features().get("avx512f", False))


AVX512 = _has_avx512()
ROWS = 12 if AVX512 else 6  # output channels of a tile, whose pixels are one vector; taps of a weight gradient's tile
NARROW_ROWS, NARROW_VECTORS = 4, 3 if AVX512 else 1  # of a tile with few output channels (three in the gradient of an RGB image)
SINGLE_VECTORS = 8 if AVX512 else 4  # vectors of pixels of a tile with a single output channel (depthwise)
PANEL_VECTORS = 2 if AVX512 else 1  # vectors of columns of a matrix product's tile: the other half of the AVX-512 registers
