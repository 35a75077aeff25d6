"""Targets that do what no target should, one function each; every one of them computes tanh, or would."""

import contextlib
import os
import pickle
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
    """One ulp off every third time."""
    KEPT.append(None)
    return np.tanh(x) if len(KEPT) % 3 else np.nextafter(np.tanh(x), x.dtype.type(2))


class Hostile:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self):
        return os.system, (f"touch {os.environ.get('NPREPARAM_HOSTILE', 'hostile')}",)


def objects(x):
    y = np.empty(x.shape, object)
    y[...] = Hostile()
    return y


def writes(x):
    """A pickle, and then noise, into every pipe there is."""
    message = pickle.dumps(Hostile())
    for pipe in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(pipe, len(message).to_bytes(8, "little") + message)
    return np.tanh(x)


def unspeakable(x):
    class MuteError(Exception):
        def __str__(self):
            raise ValueError("no words")

    raise MuteError


def interrupts(x):
    raise KeyboardInterrupt


def exits_on_nan(x):
    if np.isnan(x).any():
        os._exit(7)
    return np.tanh(x)


targets = {name: SimpleNamespace(tanh=function) for name, function in list(globals().items()) if callable(function) and
           getattr(function, "__module__", "") == __name__}
globals().update({f"target_{name}": value for name, value in targets.items()})
