"""All benchmarks, side by side with PyTorch: python benchmarks/run.py [results.json]

Needs the extras `cli`, `plots`, `data` and `peers`. Prints tables and writes JSON. The process restarts itself without OPENBLAS_CORETYPE and
OPENBLAS_L2_SIZE, which slow NumPy's BLAS down.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench_conv2d, bench_start, measure


def show(row):
    print("  ".join(f"{value:>9.2f}" if isinstance(value, float) else f"{value!s:>14}" for value in row.values()), flush=True)


def table(title, rows):
    print(f"\n{title}\n" + "  ".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        show(row)


def main():
    measure.clean_environment()
    record = {"machine": measure.machine()}
    for name, value in record["machine"].items():
        print(f"{name}: {value}")
    record["start"] = bench_start.import_times() | bench_start.compilation() | bench_start.blas_afterwards()
    for name, value in record["start"].items():
        print(f"{name}: {value:.3f}")
    record["memory"] = bench_conv2d.memory()
    table("Peak memory of a convolution beside its result, batch 8, float32", record["memory"])
    print("\nConvolution: dtype, pass, batch, layer, npreparam GF/s, PyTorch GF/s, ratio")
    record["conv2d"] = bench_conv2d.speed(show)
    record["means"] = bench_conv2d.means(record["conv2d"])
    table("Geometric means of the speed ratios", record["means"])
    measure.save(record, sys.argv[1] if len(sys.argv) > 1 else "benchmark-results.json")


if __name__ == "__main__":
    main()
