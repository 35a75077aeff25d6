"""The judge on honest targets: python benchmarks/bench_judge.py [cases]

By default 10^5 cases of npreparam itself, of plain NumPy formulas and of simulated machines (any order, fused, blocked; Winograd by its own
profile), all of which must conform: any FAIL is a wrong bound or a wrong case. Prints the false FAILs and SUSPECTs, the largest error/bound,
and how many cases a second each function is judged at.
"""

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from npreparam.certified import bounds
from npreparam.conformance import Key, Level
from npreparam.conformance.cases import keys
from npreparam.conformance.runner import InProcess
from npreparam.conformance.signatures import OPS
from npreparam.conformance.sweep import judged
from tests.certified import simulate
from tests.conformance import honest

PHASES = {"exact": 2, "geometry": 4, "adjoint": 1, "relation": 3, "random": 10}  # shares
CHUNK = 200


def targets():
    """(name, target, functions, share of the cases)."""
    yield "npreparam", "npreparam", OPS, 10
    yield "plain NumPy", honest.PLAIN, [op for op in OPS if hasattr(honest.PLAIN, op)], 6
    for style in simulate.STYLES:
        yield f"machine, {style}", honest.machine(style, bounds.FLOAT32), ["conv2d"], 0.2
    for m, profile in ((2, bounds.WINOGRAD_F2_3), (4, bounds.WINOGRAD_F4_3), (6, bounds.WINOGRAD_F6_3)):
        yield f"Winograd F({m},3)", honest.by_winograd(m, profile), ["conv2d"], 0.2


def judge_some(number, op, wanted):
    """(verdicts by level, failures, largest error/bound, seconds) of keys; in a worker."""
    target = list(targets())[number][1]
    runner, begin = InProcess(target), time.process_time()
    verdicts = [judged(key, runner)[1] for key in wanted]
    levels = Counter(str(verdict.level) for verdict in verdicts)
    failed = [f"{verdict.key}: {verdict.explanation}" for verdict in verdicts if not verdict.conforms or verdict.level is Level.SUSPECT]
    return levels, failed, max(verdict.ratio for verdict in verdicts), time.process_time() - begin


def wanted_keys(ops, count):
    """About so many keys: all functions, both formats, the phases by their shares."""
    each, total = count / len(ops) / 2, sum(PHASES.values())
    for op in ops:
        found: list[Key] = []
        for dtype in ("float32", "float64"):
            for phase, share in PHASES.items():
                found += keys(op, phase, dtype, 7, range(int(each * share / total) + 1))
        yield op, found


def main():
    count = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**5
    rows = list(targets())
    total = sum(share for *_, share in rows)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        futures = [(name, op, [pool.submit(judge_some, i, op, found[j:j + CHUNK]) for j in range(0, len(found), CHUNK)])
                   for i, (name, _, ops, share) in enumerate(rows) for op, found in wanted_keys(ops, count * share / total)]
        cases, wrong = Counter(), []
        for name, op, parts in futures:
            results = [part.result() for part in parts]
            levels, seconds = sum((result[0] for result in results), Counter()), sum(result[3] for result in results)
            wrong += [f"{name}: {line}" for result in results for line in result[1]]
            cases += levels
            print(f"{name:24} {op:20} {levels.total():>7} cases {levels.total() / seconds:>7.0f}/s  largest error/bound "
                  f"{max(result[2] for result in results):.3f}", flush=True)
    print(f"{cases.total()} cases: {dict(cases)}", *wrong, sep="\n")


if __name__ == "__main__":
    main()
