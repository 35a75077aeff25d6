"""Files, written under a temporary name, then moved into place, so that none is ever half-written; tables, of which nothing is cut."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from npreparam._errors import ArgumentError
from npreparam.checkpoints._files import PART, written

WIDEST = 2**20  # characters of a line of a table


def prepare_folder(folder: Path, overwrite: bool, option: str = "--out") -> None:
    """Create the folder; refuse one that cannot be written, or that has something in it unless `overwrite`."""
    try:
        if folder.exists() and not folder.is_dir():
            raise ArgumentError(f"{option} (={folder}) is a file; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
        if not occupied or overwrite:
            descriptor, name = tempfile.mkstemp(dir=folder)  # only now is it known that files can be made here
            os.close(descriptor)
            os.unlink(name)
    except OSError as error:
        raise ArgumentError(f"{option} (={folder}) cannot be written: {error.strerror}; name another folder") from None
    if occupied and not overwrite:
        raise ArgumentError(f"{option} (={folder}) is not empty; name another folder, or pass --overwrite")


def remove_parts(folder: Path) -> None:
    """Remove what a run that was killed while it wrote has left in its folder."""
    for leftover in folder.glob(f".*.????????{PART}"):
        leftover.unlink()


def write(path: Path, content: bytes) -> None:
    """Write a whole file or none."""
    with written(path) as file:
        file.write(content)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write(path, buffer.getvalue())


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON."""
    write(path, (json.dumps(record, indent=2) + "\n").encode())


def write_figure(path: Path, figure: Any) -> None:
    """Write a matplotlib figure as PNG, without a date or version in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write(path, buffer.getvalue())


def show(table: Table, console: Console) -> None:
    """Print a table that has rows: folded where a terminal is narrow, as wide as it is where a file or a pipe is written."""
    if not table.row_count:
        return
    if console.is_terminal:  # which breaks the lines itself where not even columns of one character fit beside those that are not to be folded
        least = 1 + sum(3 + (max(len(str(cell)) for cell in (column.header, *column.cells)) if column.no_wrap else 1) for column in table.columns)
    else:
        least = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    console.width = max(console.width, least)
    console.print(table, crop=False)
