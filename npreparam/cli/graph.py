"""`fuse` and `verify` of ONNX graphs, with the table and the certificate of state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from npreparam._errors import ArgumentError
from npreparam.checkpoints import FusedGraph, fuse_graph, verify_graph
from npreparam.cli.fuse import Verdict, compared, file_of, prepare, record_of, table, verdict, write_reports
from npreparam.cli.options import Answers, Reports
from npreparam.cli.output import show

SUFFIX = ".onnx"


def is_graph(path: Path) -> bool:
    """Whether a file is, by its name, an ONNX model."""
    return path.suffix.lower() == SUFFIX


def run_fuse_graph(source: Path, out: Path, answers: Answers, reports: Reports, choices: Mapping[str, Any], console: Console) -> Verdict:
    """Fuse a graph; what is wrong, for which nothing is written, and what is only to be told."""
    if not is_graph(source):
        raise ArgumentError(f"OUT (={out}) is an ONNX graph, but IN (={source}) has none, only tensors; name a .safetensors or .npz file")
    _check_answers(answers, reports, dtype=choices["dtype"], force=choices["force"])
    dry = choices["dry_run"]
    prepare({"OUT": None if dry else out, "--report": reports.report, "--html": reports.html}, (source,), reports.overwrite)
    with _progress(console) as bar:
        task = bar.add_task("regions", total=None)
        result = fuse_graph(source, insist=choices["largest"], largest=reports.max_input, step=lambda: bar.advance(task))
    if not result.rows:
        raise ArgumentError(f"{source}: no region of its graph can be fused" + "".join(f"; {why}" for why in result.refused[:1]))
    show(table(result.rows), console)
    faults, notes = verdict(result, True, reports)
    record = record_of("fuse", source, reports, result)
    if not dry and not faults:
        result.save(out)
        record["output"] = file_of(out)
        console.print(f"{out.name}: {len(result.rows)} regions fused, {len(result.model.graph.node)} nodes, sha256 {record['output']['sha256']}",
                      soft_wrap=True, markup=False)
    if not faults:
        write_reports(record, reports)
    return faults, notes


def run_verify_graph(source: Path, other: Path, answers: Answers, reports: Reports, force: bool, console: Console) -> Verdict:
    """Check that a graph is what fusing another gives."""
    if not is_graph(source):
        raise ArgumentError(f"FUSED (={other}) is an ONNX graph, but IN (={source}) has none, only tensors; compare files of one kind")
    _check_answers(answers, reports, force=force)
    prepare({"--report": reports.report, "--html": reports.html}, (source, other), reports.overwrite)
    with _progress(console) as bar:
        task = bar.add_task("regions", total=None)
        result: FusedGraph = verify_graph(source, other, largest=reports.max_input, step=lambda: bar.advance(task))
    show(table(result.rows), console)
    faults, notes = verdict(result, True, reports)
    write_reports(record_of("verify", source, reports, result) | {"output": file_of(other)}, reports)
    return compared(source, other, faults, console), notes


def _progress(console: Console) -> Progress:
    return Progress(*Progress.get_default_columns()[:1], "{task.completed}", console=console, transient=True, disable=not console.is_terminal)


def _check_answers(answers: Answers, reports: Reports, **more: Any) -> None:
    """Refuse what has no effect on a graph."""
    usual = vars(Answers()) | {"dtype": None, "force": False, "inputs": None}
    why = {"dtype": "a region of a graph keeps its type", "force": "what has no exact fusion stays in a graph in any case",
           "inputs": "a region of a graph is measured on random inputs alone"}
    for name, value in (vars(answers) | more | {"inputs": reports.inputs}).items():
        if value != usual[name]:
            raise ArgumentError(f"--{name} (={value}) is for files of tensors: {why.get(name, 'an ONNX graph tells that itself')}; leave it out")
