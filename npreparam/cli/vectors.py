"""`vectors`: write golden vectors, or check a folder of them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from npreparam._errors import ArgumentError
from npreparam.certified.bounds.profile import STORED
from npreparam.cli.judge import as_ops
from npreparam.cli.output import prepare_folder
from npreparam.conformance.vectors import verify_vectors, write_vectors


def as_dtypes(text: str) -> tuple[str, ...]:
    """Formats by their names, between commas. Raises ArgumentError.

    >>> as_dtypes("float32, float16")
    ('float32', 'float16')
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in STORED:
            raise ArgumentError(f"--dtypes names {name!r}, but the formats are {', '.join(STORED)}")
    if not names:
        raise ArgumentError(f"--dtypes (={text!r}) names no format; give some of {', '.join(STORED)}")
    return names


def write(folder: Path, form: str, ops: str | None, dtypes: str, seed: int, count: int, overwrite: bool, console: Console) -> None:
    """Write a set of vectors, with a progress bar."""
    chosen, formats = as_ops(ops), as_dtypes(dtypes)
    if form == "npz" and "bfloat16" in formats:
        raise ArgumentError("--format (=npz) cannot hold bfloat16; use safetensors")
    prepare_folder(folder, overwrite, "DIR")
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(), console=console,
                  transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("writing vectors", total=None)
        manifest = write_vectors(folder, form, chosen, formats, seed, count, lambda done, total: bar.update(task, completed=done, total=total))
    console.print(f"{len(manifest['vectors'])} vectors and their manifest in {folder}", markup=False, soft_wrap=True)


def check(folder: Path, console: Console) -> bool:
    """Whether a folder is as it was written; what is wrong is printed."""
    faults = verify_vectors(folder)
    for fault in faults:
        console.print(fault, style="red", markup=False, soft_wrap=True)
    console.print(f"{folder}: " + (f"{len(faults)} faults" if faults else "all vectors are as they were written"), markup=False, soft_wrap=True)
    return not faults
