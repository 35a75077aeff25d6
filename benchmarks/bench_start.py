"""What a user waits for: import, the first convolution, compilation; and whether our threads disturb a BLAS call that follows."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from npreparam import ops

FIRST = """
import numpy as np, time
x, w = np.ones((1, 3, 32, 32), np.float32), np.ones((8, 3, 3, 3), np.float32)
t = time.perf_counter()
from npreparam import ops
ops.conv2d(x, w)
print(time.perf_counter() - t)
"""
TOUR = ("tour", "--epochs", "1", "--vae-epochs", "1", "--out")


def seconds_of(statement):
    """Seconds of a statement in a new process, printed by itself or taken around it."""
    return float(subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True).stdout)


def import_times(runs=9):
    """Median seconds of importing npreparam beyond NumPy, and of the first convolution in a process with a warm cache."""
    beyond = "import numpy, time\nt = time.perf_counter()\nimport npreparam\nprint(time.perf_counter() - t)"
    seconds_of(FIRST)
    return {"import npreparam beyond numpy, s": statistics.median(seconds_of(beyond) for _ in range(runs)),
            "first convolution, warm cache, s": statistics.median(seconds_of(FIRST) for _ in range(runs))}


def compilation():
    """Seconds of the shortest tour with an empty compilation cache, less the same with a warm one."""
    with tempfile.TemporaryDirectory() as cache:
        taken = []
        for run in ("cold", "warm"):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-m", "npreparam", *TOUR, os.path.join(cache, run)], env=os.environ | {"NUMBA_CACHE_DIR": cache},
                           stdout=subprocess.DEVNULL, check=True)
            taken.append(time.perf_counter() - begin)
    return {"cold compilation of the tour, s": taken[0] - taken[1]}


def blas_afterwards(runs=40):
    """Median seconds of a @ b, 512x512 float32, right after a convolution, relative to the same after an equally long pause."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 512, 512)).astype(np.float32)
    x, w = rng.standard_normal((1, 48, 56, 56)).astype(np.float32), rng.standard_normal((48, 48, 3, 3)).astype(np.float32)
    for _ in range(5):
        ops.conv2d(x, w), a @ b

    def after(prepare):
        prepare()
        begin = time.perf_counter()
        _ = a @ b
        return time.perf_counter() - begin

    pairs = [(after(lambda: ops.conv2d(x, w)), after(lambda: time.sleep(0.001))) for _ in range(runs)]
    with_us, without = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    return {"a @ b after a convolution, relative": with_us / without}
