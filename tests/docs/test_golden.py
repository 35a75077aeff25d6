"""The C++ program of the how-to page: it agrees with the golden vectors, and a wrong one does not."""

import shutil
import subprocess
from pathlib import Path

import pytest

from npreparam.conformance.vectors import write_vectors

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "golden.cpp"
COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


def judged(folder, source):
    """Exit status and verdicts of the program that `source` is, on six cases of each phase."""
    (folder / "golden").mkdir()
    write_vectors(folder / "golden", "safetensors", ["linear"], ["float32"])
    (folder / "golden.cpp").write_text(source)
    subprocess.run([COMPILER, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "golden.cpp", "-o", "golden_check"], cwd=folder, check=True)
    done = subprocess.run([folder / "golden_check", *sorted((folder / "golden").rglob("*.safetensors"))], capture_output=True, text=True, check=False)
    return done.returncode, [line.split()[0] for line in done.stdout.splitlines()]


def test_the_program_agrees(tmp_path):
    assert judged(tmp_path, SOURCE.read_text()) == (0, ["agrees"] * 18)


@pytest.mark.parametrize(("right", "wrong"), [("k < terms;", "k + 1 < terms;"),
                                              ("b.data ? b.at<float>(column)", "b.data ? -b.at<float>(column)")])
def test_a_wrong_program_does_not(tmp_path, right, wrong):
    assert right in SOURCE.read_text()
    status, verdicts = judged(tmp_path, SOURCE.read_text().replace(right, wrong))
    assert status == 1
    assert "WRONG" in verdicts
