"""Every real checkpoint fused and verified: python benchmarks/checkpoints_table.py [FOLDER]

Blocks and parameters are those of the fused blocks, bound and difference the largest of them; time is that of `fuse`, certificate included.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from typer.testing import CliRunner

from npreparam.cli.app import app
from tests.checkpoints.answers import EXPECTED
from tests.checkpoints.real import FOLDER

COLUMNS = ("file", "family", "fused", "refused", "parameters before", "after", "largest bound", "largest difference", "verify", "seconds")


def line(source, answers, folder):
    """One row of the table."""
    out, report = folder / "out.safetensors", folder / "report.json"
    arguments = [str(source), str(out), *answers, "--force", "--overwrite", "--report", str(report)]
    begin = time.perf_counter()
    result = CliRunner().invoke(app, ["fuse", *arguments])
    seconds = time.perf_counter() - begin
    if result.exit_code:
        return [source.name, "-", "0", "-", "-", "-", "-", "-", result.stderr.strip().splitlines()[-1][:60], f"{seconds:.2f}"]
    record = json.loads(report.read_text())
    checked = CliRunner().invoke(app, ["verify", str(source), str(out), *(a for a in answers if a != "--largest"), "--force"])
    rows = record["blocks"]
    families = "+".join(dict.fromkeys(row["family"] for row in rows)) or "-"
    sums = [f"{sum(row[key] for row in rows):,}" for key in ("parameters before", "parameters after")]
    largest = [f"{max((row[key] for row in rows), default=0):.2e}" for key in ("bound", "measured")]
    counts = str(len(rows)), str(len(record["refused"]))
    return [source.name, families, *counts, *sums, *largest, "no" if checked.exit_code else "yes", f"{seconds:.2f}"]


def main():
    """Print the table as Markdown."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    print(*("| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS))), sep="\n")
    with tempfile.TemporaryDirectory() as work:
        for source in sorted(path for path in folder.iterdir() if path.suffix != ".md"):
            if source.suffix == ".onnx":
                print(f"| {source.name} | (a graph, fused as one) |" + " |" * (len(COLUMNS) - 2))
            else:
                print("| " + " | ".join(line(source, EXPECTED.get(source.name, ((),))[0], Path(work))) + " |")


if __name__ == "__main__":
    main()
