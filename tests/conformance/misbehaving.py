"""Targets that do what no target should, one function each; every one of them computes tanh, or would."""

import os
import sys
import time
from types import SimpleNamespace

import numpy as np

KEPT = []


def shape(x):
    return np.tanh(x)[..., None]


def dtype(x):
    return np.tanh(x).astype(np.float64 if x.dtype == np.float32 else np.float32)


def nan(x):
    return np.full_like(x, np.nan)


def view(x):
    return x[...]


def mutates(x):
    y = np.tanh(x)
    x *= 2
    return y


def raises(x):
    raise RuntimeError("no kernel for this\nand more")


def leaves(x):
    sys.exit("enough")


def aborts(x):
    if x.size > 1:
        os.abort()
    return np.tanh(x)


def hangs(x):
    if x.size > 1:
        time.sleep(3600)
    return np.tanh(x)


def prints(x):
    line = "x" * 10**6
    for _ in range(2000):
        os.write(1, line.encode())
    print(line, flush=True)
    os.write(2, line.encode())
    return np.tanh(x)


def listed(x):
    return np.tanh(x).tolist()


def missing(x):
    raise NotImplementedError("tanh comes later")


def forgets(x):
    """Right the first time, wrong the second."""
    KEPT.append(None)
    return np.tanh(x) * x.dtype.type(1 + 2.0**-20 * (len(KEPT) % 3 == 0))


targets = {name: SimpleNamespace(tanh=function) for name, function in list(globals().items()) if callable(function) and
           getattr(function, "__module__", "") == __name__}
globals().update({f"target_{name}": value for name, value in targets.items()})
