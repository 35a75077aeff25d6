"""Damaged checkpoint files by the hundred thousand: python benchmarks/fuzz_checkpoints.py [count] [seed]

Every reader of `npreparam.checkpoints`, and with a fifth of the count the fusion of ONNX graphs, gets files with a few bytes changed, removed,
repeated or inserted, in the archive and inside it. Each must be read or refused with one FormatError, quickly. What goes wrong is printed
with the file as hexadecimal digits; the exit status tells.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints.fuzz import fuzz
from tests.checkpoints.graphs import fused_numbers, seeds


def told(what, start, outcomes, faults):
    print(f"{what} in {time.perf_counter() - start:.0f} s: {outcomes['read']} read, {outcomes['refused']} refused, {len(faults)} faults")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        faults, outcomes = fuzz(Path(folder), count, seed)
        told(f"{count} files", start, outcomes, faults)
        start = time.perf_counter()
        more, outcomes = fuzz(Path(folder), count // 5, seed, fused_numbers, seeds())
        told(f"{count // 5} graphs", start, outcomes, more)
        faults += more
    for name, content, what in faults[:20]:
        print(f"{name}: {what}\n  {content.hex()}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
