"""Convolution, forward and backward, against PyTorch on the layers of RepVGG-A0 at 224x224; and the memory it needs beside its result."""

import math
import tracemalloc

import numpy as np

from benchmarks.measure import duel
from npreparam import Window, ops
from npreparam.kernels import _plan, _scratch

# in, out channels, input height and width, stride (Ding et al., arXiv 2101.03697, table 2, A0); all kernels 3x3, padding 1
LAYERS = [(3, 48, 224, 2), (48, 48, 112, 2), (48, 48, 56, 1), (48, 96, 56, 2), (96, 96, 28, 1), (96, 192, 28, 2), (192, 192, 14, 1),
          (192, 1280, 14, 2)]
TARGETS = {("float32", "forward"): 0.85, ("float32", "backward"): 0.6, ("float64", "forward"): 2.0, ("float64", "backward"): 1.5}


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def layer_speed(n, layer, dtype, rng):
    """(forward, backward): GF/s of ours and of PyTorch."""
    import torch
    inputs, outputs, size, stride = layer
    x, w = rng.standard_normal((n, inputs, size, size)).astype(dtype), rng.standard_normal((outputs, inputs, 3, 3)).astype(dtype)
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    y = ops.conv2d(x, w, None, stride, 1)
    gy = rng.standard_normal(y.shape).astype(dtype)
    tg = torch.from_numpy(gy)
    work = 2e-9 * y.size * inputs * 9

    def theirs_backward():
        torch.ops.aten.convolution_backward(tg, tx, tw, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1, [True, True, False])

    def ours_backward():
        ops.conv2d_input_grad(gy, w, x.shape, stride, 1)
        ops.conv2d_weight_grad(gy, x, w.shape, stride, 1)

    with torch.no_grad():
        forward = duel(lambda: ops.conv2d(x, w, None, stride, 1), lambda: torch.nn.functional.conv2d(tx, tw, None, stride, 1))
        backward = duel(ours_backward, theirs_backward)
    return [work / seconds for seconds in forward], [2 * work / seconds for seconds in backward]


def speed(progress):
    """All layers, batches and dtypes; rows of (dtype, pass, batch, layer, ours, theirs, ratio)."""
    rng, rows = np.random.default_rng(0), []
    for dtype in (np.float32, np.float64):
        for n in (1, 8):
            for layer in LAYERS:
                for direction, (ours, theirs) in zip(("forward", "backward"), layer_speed(n, layer, dtype, rng), strict=True):
                    name = f"{layer[0]}->{layer[1]} {layer[2]}/{layer[3]}"
                    rows.append({"dtype": np.dtype(dtype).name, "pass": direction, "batch": n, "layer": name, "npreparam GF/s": ours,
                                 "torch GF/s": theirs, "ratio": ours / theirs})
                    progress(rows[-1])
    return rows


def means(rows):
    """Geometric means of the ratios, for each batch and together, beside the targets."""
    found = []
    for (dtype, direction), target in TARGETS.items():
        mine = [row for row in rows if row["dtype"] == dtype and row["pass"] == direction]
        parts = {f"batch {n}": geometric_mean([row["ratio"] for row in mine if row["batch"] == n]) for n in (1, 8)}
        found.append({"dtype": dtype, "pass": direction, **parts, "both": geometric_mean([row["ratio"] for row in mine]), "target": target})
    return found


def memory():
    """Peak bytes beside the result, and the allowance: padded input + packed weights + 1 MiB, for the layers at batch 8."""
    rows = []
    for inputs, outputs, size, stride in LAYERS:
        x, w = np.ones((8, inputs, size, size), np.float32), np.ones((outputs, inputs, 3, 3), np.float32)
        ops.conv2d(x[:1], w, None, stride, 1)  # compiled, planned
        _plan.forward(x.shape, w.shape, Window.of(3, stride, 1), 4)
        _scratch._buffers.kept.clear()
        tracemalloc.start()
        y = ops.conv2d(x, w, None, stride, 1)
        peak = tracemalloc.get_traced_memory()[1] - y.nbytes
        tracemalloc.stop()
        allowed = 8 * inputs * (size + 2) ** 2 * 4 + w.nbytes + 2**20
        rows.append({"layer": f"{inputs}->{outputs} {size}/{stride}", "peak MiB": peak / 2**20, "allowed MiB": allowed / 2**20})
    return rows
