"""The folder of real trained checkpoints, which lies beside the repository and is not part of it."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2].parent / "shared" / "checkpoints"
NAMES = sorted(path.name for path in FOLDER.glob("*") if path.suffix != ".md") or ["no folder"]


def real(name):
    """The path of one of them, or a skipped test."""
    if not FOLDER.is_dir():
        pytest.skip(f"no folder of real checkpoints at {FOLDER}")
    return FOLDER / name
