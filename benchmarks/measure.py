"""How the benchmarks measure: two sides in one process, taking turns, medians of many.

Every turn is a burst: a pause, two calls that are not counted, then some that are: about as many as a network has layers of a kind. Without
the pause the side that goes second would be measured while the other side's threads still spin (PyTorch's OpenMP threads spin for some
milliseconds after a call and hold a core meanwhile); within a burst each side has its own threads awake, as in a network of many layers.
"""

import json
import os
import platform
import statistics
import sys
import time

PAUSE = 0.006  # seconds
WARM, BURST = 2, 6  # calls of a burst that are not counted, and that are
SECONDS = 0.8  # for one duel, at least
TURNS = 5  # likewise


def clean_environment():
    """Start again without the variables that slow NumPy's BLAS down, if they are set."""
    slow = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]
    if slow:
        os.execve(sys.executable, [sys.executable, *sys.argv], {k: v for k, v in os.environ.items() if k not in slow})


def burst(call):
    time.sleep(PAUSE)
    for _ in range(WARM):
        call()
    times = []
    for _ in range(BURST):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def once(call):
    """Seconds of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def duel(ours, theirs):
    """Median seconds of both."""
    ours(), theirs()
    taken, end = ([], []), time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(taken[0]) < TURNS * BURST:
        taken[0].extend(burst(ours))
        taken[1].extend(burst(theirs))
    return statistics.median(taken[0]), statistics.median(taken[1])


def machine():
    """What the figures were measured on."""
    import numpy
    import threadpoolctl

    import npreparam
    from npreparam.kernels import _cpu
    a = numpy.ones((64, 64))
    _ = a @ a
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    blas = [f"{pool['internal_api']} {pool.get('architecture', '')}".strip() for pool in pools]
    with open("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else open(os.devnull) as file:
        models = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
    return {"cpu": ", ".join(models) or platform.processor(), "threads": npreparam.get_num_threads(), "AVX-512": _cpu.AVX512, "blas": ", ".join(blas),
            "python": platform.python_version(), "numpy": numpy.__version__, "pause": f"{PAUSE * 1e3:g} ms before each burst of {BURST}"}


def save(record, path):
    """Write a record as JSON, whole or not at all."""
    temporary = f"{path}.tmp"
    with open(temporary, "w") as file:
        json.dump(record, file, indent=2)
    os.replace(temporary, path)
