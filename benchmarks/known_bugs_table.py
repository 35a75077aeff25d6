"""Every known bug of other projects before the judge, as a user would have it: python benchmarks/known_bugs_table.py [ROWS]

Each row of the bank of mistakes that was seen somewhere is planted behind the right functions and judged by `npreparam judge` in a process of its
own, with a budget of 60 s and until the first failure. Seconds are those of the whole command, start, diagnosis and report included. A name is
right if it is the first that the diagnosis gives, or if the diagnosis calls it alike. ROWS are numbers between commas, such as 0,3.
"""

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from npreparam.conformance.mistakes import MISTAKES, as_target

ROWS = [mistake for mistake in MISTAKES.values() if mistake.seen]
BUDGET = "60s"


def __getattr__(name):
    """The target with mistake number 7 is `row_7` of this file."""
    if not re.fullmatch(r"row_\d+", name) or int(name[4:]) >= len(ROWS):
        raise AttributeError(name)
    return as_target(ROWS[int(name[4:])])


def cpu():
    """Seconds of processor time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def trial(number, folder):
    """(exit status, seconds, seconds of processor time, report)."""
    path = Path(folder) / f"{number}.json"
    command = [sys.executable, "-m", "npreparam", "judge", f"{__file__}:row_{number}", "--budget", BUDGET, "--fail-fast", "--json", str(path)]
    begin, used = time.perf_counter(), cpu()
    status = subprocess.run(command, capture_output=True, check=False).returncode
    return status, time.perf_counter() - begin, cpu() - used, json.loads(path.read_text())


def names(report, op):
    """What the diagnosis of a function, and of its failure, says."""
    failed = [row for row in report["verdicts"] if row["level"] in ("FAIL", "ERROR")]
    found = [*report["diagnosis"].get(op, []), *(name for row in failed for name in row.get("diagnosis", []))]
    return found or [row.get("profile", "") or "no name" for row in failed] or ["-"]


def main():
    wanted = [int(part) for part in sys.argv[1].split(",")] if len(sys.argv) > 1 else range(len(ROWS))
    caught = right = 0
    print(f"{'':3} {'function':20} {'planted':52} {'caught':6} {'seconds':>7} {'CPU':>6}  named")
    with tempfile.TemporaryDirectory() as folder:
        for number in wanted:
            mistake = ROWS[number]
            status, seconds, used, report = trial(number, folder)
            told = names(report, mistake.op)[0]
            alike = re.findall(r"here the same as: (.*?)\); look at", told)
            is_right = mistake.name in (re.split(r" \(|; look at", told)[0], *(alike[0].split(", ") if alike else ()))
            caught, right = caught + (status == 1), right + is_right
            print(f"{number:3} {mistake.op:20} {mistake.name[:52]:52} {'yes' if status == 1 else 'NO':6} {seconds:7.1f} {used:6.1f}  "
                  f"{'right' if is_right else 'NOT RIGHT: ' + told[:70]}", flush=True)
    print(f"{len(wanted)} known bugs: {caught} caught, {right} named right")


if __name__ == "__main__":
    main()
