"""`fuse` and `verify`: a checkpoint's blocks as one convolution each, with a certificate that can be checked again from the two files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from npreparam import checkpoints
from npreparam._errors import ArgumentError, FormatError, FusionError
from npreparam.checkpoints import Block, Certificate, Fused, Measure, Row, load, save
from npreparam.checkpoints._read import input_channels
from npreparam.cli.options import Answers, Reports
from npreparam.cli.output import show, write, write_json
from npreparam.cli.page import page

LINES = 6  # of one kind that are told before they are counted
MANY = 8  # blocks from which on a progress bar is worth its line
DTYPES = ("float16", "bfloat16", "float32", "float64")
Verdict = tuple[list[str], list[str]]  # lines: what is wrong, what is only to be told
WRITTEN = (".safetensors", ".npz")


def dtype_of(name: str | None) -> np.dtype[Any] | None:
    """A storage format by its name."""
    if name is None:
        return None
    if name not in DTYPES:
        raise ArgumentError(f"--dtype (={name}) must be one of {', '.join(DTYPES)}")
    if name == "bfloat16":
        import ml_dtypes
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def real_inputs(path: Path | None, blocks: tuple[Block, ...], tensors: Mapping[str, np.ndarray]) -> np.ndarray | Mapping[str, np.ndarray] | None:
    """The arrays of --inputs: one, or one for each block it names; refused where no block can read them."""
    if path is None:
        return None
    channels = {block.name: input_channels(block.expression, tensors) for block in blocks}
    if path.suffix.lower() == ".npz":
        arrays = dict(load(path))
        unknown = sorted(set(arrays) - set(channels))
        if unknown:
            raise ArgumentError(f"--inputs (={path}) has an array {unknown[0]}, but no block is called so; `--dry-run` lists their names")
    else:
        try:
            arrays = {path.name: np.load(path, allow_pickle=False)}
        except (ValueError, EOFError, OSError) as error:
            raise FormatError(f"--inputs (={path}) cannot be read as .npy: {error}") from None
    for name, x in arrays.items():
        if not (isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.ndim == 4 and x.size and np.isfinite(x).all()):
            raise ArgumentError(f"--inputs: {name} must be a finite float array (N, C, H, W)"
                                + (f", not {x.dtype} {x.shape}" if isinstance(x, np.ndarray) else ""))
        fitting = {channels[name]} if name in channels else set(channels.values())
        if x.shape[1] not in fitting:
            raise ArgumentError(f"--inputs: {name} has {x.shape[1]} channels, but {'its' if name in channels else 'no'} block reads "
                                f"{'' if name in channels else 'so many, only '}{', '.join(map(str, sorted(fitting)))}; give what a block reads")
    return arrays if path.suffix.lower() == ".npz" else arrays[path.name]


def prepare(outputs: Mapping[str, Path | None], sources: tuple[Path, ...], overwrite: bool) -> None:
    """Refuse outputs that are inputs or each other, exist, or cannot be written, before any work is done."""
    paths = {name: path for name, path in outputs.items() if path is not None}
    if overwrite and not paths:
        raise ArgumentError("--overwrite has no effect where nothing is written; leave it out")
    for name, path in paths.items():
        same = next((source for source in sources if path.exists() and source.exists() and path.samefile(source)), None)
        if same is not None:
            raise ArgumentError(f"{name} (={path}) is the input {same}; name another file")
        if path.exists() and (path.is_dir() or not overwrite):
            raise ArgumentError(f"{name} (={path}) {'is a folder; name a file' if path.is_dir() else 'exists; name another file, or --overwrite'}")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise ArgumentError(f"{name} (={path}) cannot be written: the folder {path.parent} "
                                f"{'may not be written to' if path.parent.is_dir() else 'does not exist'}")
    if len({path.resolve() for path in paths.values()}) < len(paths):
        raise ArgumentError(f"{' and '.join(paths)} must be different files")


def refuse_graph(source: Path, other: str) -> None:
    """Refuse to take an ONNX graph for a bag of tensors: what its nodes tell would have to be guessed, and a wrong guess would be certified."""
    if source.suffix.lower() == ".onnx":
        raise ArgumentError(f"IN (={source}) is an ONNX graph, whose nodes tell what tensors do not (eps, strides, what is transposed), "
                            f"but {other} is none; name an .onnx file")


@contextmanager
def progress(blocks: tuple[Block, ...], console: Console) -> Iterator[Callable[[], None]]:
    """A step to call after each block, shown as a progress bar where there are many."""
    with Progress(console=console, transient=True, disable=len(blocks) < MANY or not console.is_terminal) as bar:
        task = bar.add_task("blocks", total=len(blocks))
        yield lambda: bar.advance(task)


def run_fuse(source: Path, out: Path, answers: Answers, reports: Reports, choices: Mapping[str, Any], console: Console) -> Verdict:
    """Fuse a file; what is wrong, for which nothing is written, and what is only to be told."""
    dtype, dry = dtype_of(choices["dtype"]), choices["dry_run"]
    refuse_graph(source, f"OUT (={out})")
    if out.suffix.lower() not in WRITTEN:
        raise ArgumentError(f"OUT (={out}) must end in {' or '.join(WRITTEN)}, the formats that are written")
    prepare({"OUT": None if dry else out, "--report": reports.report, "--html": reports.html}, (source,), reports.overwrite)
    tensors = load(source)
    found = answers.recognise(tensors)
    answers.check_effect(tensors, found, answers)
    measure = Measure(reports.max_input, real_inputs(reports.inputs, found.blocks, tensors))
    with progress(found.blocks, console) as step:
        result = checkpoints.fuse(tensors, found, dtype, insist=choices["largest"], measure=measure, step=step)
    show(table(result.rows), console)
    faults, notes = verdict(result, choices["force"], reports)
    record = record_of("fuse", source, reports, result)
    if not dry and not faults:
        save(out, result.tensors, {"npreparam": json.dumps({"input sha256": record["input"]["sha256"], "answers": answers.to_json()})})
        record["output"] = file_of(out)
        console.print(f"{out.name}: {len(tensors)} tensors -> {len(result.tensors)}, sha256 {record['output']['sha256']}", soft_wrap=True,
                      markup=False)
    if not faults:
        write_reports(record, reports)
    return faults, notes


def run_verify(source: Path, other: Path, answers: Answers, reports: Reports, force: bool, console: Console) -> Verdict:
    """Check that a file is what fusing another gives: every stored number, and all tensors that pass through bit for bit."""
    refuse_graph(source, f"FUSED (={other})")
    prepare({"--report": reports.report, "--html": reports.html}, (source, other), reports.overwrite)
    tensors, stored = load(source), load(other)
    said = _said(stored.metadata.get("npreparam"))
    completed, taken = answers.completed(said.get("answers"))
    found = completed.recognise(tensors)
    answers.check_effect(tensors, found, completed)
    measure = Measure(reports.max_input, real_inputs(reports.inputs, found.blocks, tensors))
    with progress(found.blocks, console) as step:
        result = checkpoints.verify(tensors, stored, found, measure=measure, step=step)
    show(table(result.rows), console)
    faults, notes = verdict(result, force, reports)
    record = record_of("verify", source, reports, result) | {"output": file_of(other)}
    if taken:
        notes.append(f"as {other.name} says it was fused with: {taken}")
    if said.get("input sha256") not in (None, record["input"]["sha256"]):
        notes.append(f"{other.name} says it was fused from another file, of sha256 {said['input sha256']}")
    write_reports(record, reports)
    return compared(source, other, faults, console), notes


def compared(source: Path, other: Path, faults: list[str], console: Console) -> list[str]:
    """Say that a pair belongs together; else its faults, behind a line that counts them."""
    if not faults:
        console.print(f"{other.name} is {source.name}, fused: every block is within its bound", soft_wrap=True, markup=False, highlight=False)
    return [f"{other.name} is not {source.name}, fused: {len(faults)} things are wrong", *faults] if faults[1:] else faults


def _said(text: Any) -> dict[str, Any]:
    """What `fuse` wrote into a file about itself, or nothing."""
    try:
        said = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def verdict(result: Fused, force: bool, reports: Reports) -> Verdict:
    """(faults, notes): with `force`, blocks that cannot be fused are only told."""
    names: dict[str, list[str]] = {}
    for name, why in result.kept.items():
        names.setdefault(why, []).append(name)
    notes = [f"{some[0]}{f' and {len(some) - 1} more stay' if some[1:] else ' stays'} as it was: {why} (--largest)" for why, some in names.items()]
    if reports.inputs is not None:
        measured = [row for row in result.rows if row.on_inputs is not None]
        worst = max(measured, key=lambda row: row.on_inputs.measured or 0.0, default=None)
        notes.append(f"{len(measured)} of {len(result.rows)} blocks were measured on {reports.inputs.name}, those whose input channels it fits"
                     + (f": at most {worst.on_inputs.measured:.2e}, of {worst.block.name}, whose bound there is {worst.on_inputs.bound:.2e}"
                        if worst and worst.on_inputs and worst.on_inputs.measured is not None else ""))
    return (result.faults, notes + result.refused) if force else (result.faults + result.refused, notes)


def record_of(command: str, source: Path, reports: Reports, result: Fused) -> dict[str, Any]:
    """The certificate."""
    record = {"command": command, "input": file_of(source), "largest input": reports.max_input, "blocks": [_row(row) for row in result.rows],
              "kept": [f"{name}: {why}" for name, why in result.kept.items()], "refused": result.refused, "faults": result.faults}
    return record | ({"inputs": file_of(reports.inputs)} if reports.inputs else {})


def _row(row: Row) -> dict[str, Any]:
    return {"block": row.block.name, "family": row.block.family, "branches": row.block.branches(), "weight": list(row.weight.shape),
            "parameters before": row.before, "parameters after": row.after, "dtype": str(row.weight.dtype), "rounding": row.rounding,
            **_numbers(row.certificate), "on inputs": None if row.on_inputs is None else _numbers(row.on_inputs), "held": row.held}


def _numbers(found: Certificate) -> dict[str, Any]:
    return {"largest input": found.largest, "bound": found.bound, "measured": found.measured, "evaluation bound": found.evaluation}


def file_of(path: Path) -> dict[str, str]:
    """A file's name and hash."""
    with path.open("rb") as file:
        return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_reports(record: dict[str, Any], reports: Reports) -> None:
    """Write the certificate where it was asked for."""
    if reports.report:
        write_json(reports.report, record)
    if reports.html:
        write(reports.html, page(record).encode())


def table(rows: list[Row]) -> Table:
    """What was fused."""
    real = any(row.on_inputs is not None for row in rows)
    numbers = ("bound", "measured", *(("on inputs",) if real else ()), "held")
    made = Table(*(Column(name, overflow="fold") for name in ("block", "family", "branches", "weight", "parameters")),
                 *(Column(name, no_wrap=True) for name in numbers))
    for row in rows:
        made.add_row(escape(row.block.name), escape(row.block.family), str(row.block.branches()), "x".join(map(str, row.weight.shape)),
                     f"{row.before:,} -> {row.after:,}", f"{row.certificate.bound:.2e}", _measured(row.certificate),
                     *([_measured(row.on_inputs)] if real else []), "yes" if row.held else "NO")
    return made


def _measured(found: Certificate | None) -> str:
    return "-" if found is None or found.measured is None else f"{found.measured:.2e}"


def abridged(lines: list[str], command: str) -> list[str]:
    """The lines, those with the same reason behind their first colon as one, as many as are read; and how many more there are."""
    options = "--report FILE" if command == "verify" else "--dry-run --force --report FILE"  # nothing is written where something is wrong
    alike: dict[str, list[str]] = {}
    for line in lines:
        alike.setdefault(line.partition(": ")[2] or line, []).append(line)
    told = [some[0] if len(some) == 1 else f"{some[0].partition(': ')[0]}, and {len(some) - 1} more alike ({options} lists them): {why}"
            for why, some in alike.items()]
    if len(told) <= LINES + 1:
        return told
    return [*told[:LINES], f"and {sum(map(len, list(alike.values())[LINES:]))} more, which {options} lists"]


def reported(command: str, run: Callable[[], Verdict]) -> bool:
    """Run a command; whether nothing was wrong. Every fault and every refusal is one line."""
    console = Console(stderr=True)
    try:
        faults, notes = run()
    except (FormatError, FusionError, ArgumentError, ImportError, OSError, TypeError) as error:
        faults, notes = [str(error)], []
    for style, lines in (("yellow", notes), ("red", faults)):
        for line in abridged(lines, command):
            console.print(f"npreparam {command}: {line}", style=style, markup=False, soft_wrap=True, highlight=False)
    return not faults
