"""Damaged files for every reader: each is read, or refused with one line."""

import time

import numpy as np

from npreparam import FormatError
from npreparam.checkpoints import load
from tests.checkpoints.build import damaged_file, seeds

SLOW = 2.0  # seconds of this process for a file of a few hundred bytes: no honest reader takes a hundredth of it


def fuzz(folder, count, seed, read=load, good=None):
    """Read `count` damaged files of those in `good`, by default one for each reader.

    Returns [(file name, content, what went wrong)], and how many were read and refused.
    """
    rng = np.random.default_rng(seed)
    faults, outcomes = [], {"read": 0, "refused": 0}
    good = good or seeds()
    names = list(good)
    for i in range(count):
        name = names[i % len(names)]
        content = damaged_file(name, good[name], rng)
        path = folder / name
        path.write_bytes(content)
        start = time.process_time()
        try:
            checkpoint = read(path)
            for array in checkpoint.values():
                array.tobytes()
            outcomes["read"] += 1
        except FormatError as error:
            outcomes["refused"] += 1
            if "\n" in str(error) or not str(error).startswith(f"{path}: "):
                faults.append((name, content, f"the message {error}"))
        except Exception as error:
            faults.append((name, content, repr(error)))
        if time.process_time() - start > SLOW:
            faults.append((name, content, "slow"))
    return faults, outcomes
