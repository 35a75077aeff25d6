"""A target for the cluster: right, except that the process dies when it first meets the one case of a certain shape, or always."""

import os
import signal
from pathlib import Path

import numpy as np


def tanh(x):
    mark = os.environ.get("NPREPARAM_TEST_DIE", "")
    if mark and x.shape == (2, 3, 2, 2) and (mark == "always" or not Path(mark).exists()):
        if mark != "always":
            Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return np.tanh(x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
