"""`fuse` and `verify`: a checkpoint's blocks as one convolution each, with a certificate that can be checked again from the two files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from npreparam._errors import ArgumentError, FormatError, FusionError
from npreparam.checkpoints import Block, Recognition, load, read_patterns, recognise, save
from npreparam.checkpoints.certificate import Certificate, certify
from npreparam.checkpoints.fold import fold
from npreparam.cli.output import write_json

MANY = 8  # blocks from which on a progress bar is worth its line
DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Answers:
    """What a user says of a checkpoint that its tensors do not."""

    family: str = "auto"
    eps: float | None = None
    stride: int | None = None
    identity: bool | None = None
    transposed: tuple[str, ...] | None = None

    def recognise(self, tensors: Any) -> Recognition:
        """The blocks; `family` may be the path of a TOML file."""
        patterns = read_patterns(self.family) if self.family.endswith(".toml") else ()
        found = recognise(tensors, "auto" if patterns else self.family, patterns=patterns, eps=self.eps, stride=self.stride,
                          identity=self.identity, transposed=self.transposed)
        if not found.blocks:
            raise ArgumentError(f"no block of family {self.family} is in the checkpoint"
                                + "".join(f"; {name}: {why}" for name, why in list(found.left_over.items())[:1]))
        return found


@dataclass
class Outcome:
    """The rows of the table, and one line for each thing that went wrong."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, block: Block, tensors: Any, arrays: tuple[Any, Any], certificate: Certificate, rounding: str = "") -> None:
        """A block and its certificate."""
        weight, bias = arrays
        before = sum(tensors[name].size for name in block.tensors if name not in block.stale)
        self.rows.append({"block": block.name, "family": block.family, "branches": block.branches(), "weight": list(weight.shape),
                          "parameters before": before, "parameters after": weight.size + bias.size, "dtype": str(weight.dtype),
                          "rounding": rounding, "bound": certificate.bound, "measured": certificate.measured,
                          "evaluation bound": certificate.evaluation, "held": certificate.held})
        if not certificate.held:
            self.faults.append(f"{block.name}: {certificate.wrong} of {weight.size + bias.size} stored numbers are not the block's, rounded; "
                               f"measured {_number(certificate.measured)}, bound {certificate.bound:.3g}")

    def table(self) -> Table:
        """What was fused."""
        table = Table("block", "family", "branches", "weight", "parameters", "bound", "measured", "held")
        for row in self.rows:
            table.add_row(row["block"], row["family"], str(row["branches"]), "x".join(map(str, row["weight"])),
                          f"{row['parameters before']:,} -> {row['parameters after']:,}", f"{row['bound']:.2e}", _number(row["measured"]),
                          "yes" if row["held"] else "NO")
        return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def sha256(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


@contextmanager
def each(blocks: tuple[Block, ...], console: Console) -> Iterator[Callable[[], None]]:
    """A step to call after each block, shown as a progress bar where there are many."""
    with Progress(console=console, transient=True, disable=len(blocks) < MANY) as bar:
        task = bar.add_task("blocks", total=len(blocks))
        yield lambda: bar.advance(task)


def fused(tensors: Any, found: Recognition, dtype: Any, largest: float, console: Console) -> tuple[dict[str, Any], Outcome]:
    """The output's tensors in the input's order, the fused ones where their block began."""
    outcome, made = Outcome(), {}
    with each(found.blocks, console) as step:
        for block in found.blocks:
            try:
                folded = fold(block, tensors, dtype)
                made[block.name] = _stored(block, (folded.weight, folded.bias))
                outcome.add(block, tensors, (folded.weight, folded.bias),
                            certify(block, tensors, folded.weight, folded.bias, largest), folded.rounding)
            except (FusionError, ArgumentError) as error:
                outcome.faults.append(f"{block.name} ({block.family}) is not fused: {error}")
            step()
    outcome.faults += [f"{name} is left over: {why}" for name, why in found.left_over.items()]
    owner = {name: block.name for block in found.blocks for name in block.tensors}
    result: dict[str, Any] = {}
    for name, array in tensors.items():
        new = made.get(owner.get(name, ""))
        for key, value in ({name: array} if new is None else new).items():
            if key in result and result[key] is not value:
                raise ArgumentError(f"two tensors of the output would be called {key}; describe the family with another `fused`")
            result[key] = value
    return result, outcome


def _stored(block: Block, arrays: tuple[Any, Any]) -> dict[str, Any]:
    return {f"{block.fused}.{part}".lstrip("."): array for part, array in zip(("weight", "bias"), arrays, strict=True)}


def run_fuse(source: Path, out: Path, answers: Answers, options: dict[str, Any], console: Console) -> list[str]:
    """Fuse a file; the faults, for which nothing is written unless `force` keeps those blocks as they are."""
    dtype, report = dtype_of(options["dtype"]), options["report"]
    if out.suffix.lower() not in (".safetensors", ".npz"):
        raise ArgumentError(f"OUT (={out}) must end in .safetensors or .npz, the formats that are written")
    if out.exists() and out.samefile(source):
        raise ArgumentError(f"OUT (={out}) is IN; name another file")
    tensors = load(source)
    result, outcome = fused(tensors, answers.recognise(tensors), dtype, options["largest"], console)
    console.print(outcome.table())
    record = {"command": "fuse", "input": {"file": source.name, "sha256": sha256(source)}, "largest input": options["largest"],
              "blocks": outcome.rows, "faults": outcome.faults}
    broken = [row["block"] for row in outcome.rows if not row["held"]]
    if not options["dry_run"] and not broken and (options["force"] or not outcome.faults):
        save(out, result, {"npreparam": json.dumps({"input sha256": record["input"]["sha256"]})})
        record["output"] = {"file": out.name, "sha256": sha256(out)}
        console.print(f"{out.name}: {len(tensors)} tensors -> {len(result)}, sha256 {record['output']['sha256']}", soft_wrap=True, markup=False)
        if report:
            write_json(report, record)
    elif options["dry_run"] and report and not outcome.faults:
        write_json(report, record)
    return outcome.faults


def run_verify(source: Path, other: Path, answers: Answers, options: dict[str, Any], console: Console) -> list[str]:
    """Check that a file is what fusing another gives: every stored number, and all tensors that pass through bit for bit."""
    tensors, stored = load(source), load(other)
    found, outcome = answers.recognise(tensors), Outcome()
    expected = set(found.passed_through)
    with each(found.blocks, console) as step:
        for block in found.blocks:
            names = [f"{block.fused}.{part}".lstrip(".") for part in ("weight", "bias")]
            expected |= set(names)
            if block.refusal or block.needed():
                outcome.faults.append(f"{block.name} ({block.family}) cannot be checked: {block.refusal or 'give ' + ', '.join(block.needed())}")
            elif missing := [name for name in names if name not in stored]:
                outcome.faults.append(f"{block.name}: there is no {missing[0]} in {other.name}")
            else:
                arrays = stored[names[0]], stored[names[1]]
                outcome.add(block, tensors, arrays, certify(block, tensors, *arrays, options["largest"]))
            step()
    outcome.faults += [f"{name} is left over: {why}" for name, why in found.left_over.items()]
    outcome.faults += [f"{name} does not pass through bit for bit" for name in found.passed_through if not _same(tensors[name], stored.get(name))]
    outcome.faults += [f"{name} is in {other.name} alone" for name in stored if name not in expected]
    console.print(outcome.table())
    if options["report"]:
        files = {key: {"file": path.name, "sha256": sha256(path)} for key, path in (("input", source), ("output", other))}
        write_json(options["report"], {"command": "verify", **files, "blocks": outcome.rows, "faults": outcome.faults})
    return outcome.faults


def _same(a: Any, b: Any) -> bool:
    return b is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def reported(command: str, run: Callable[[], list[str]]) -> bool:
    """Run a command; whether nothing was wrong. Every fault and every refusal is one line."""
    console = Console(stderr=True)
    try:
        faults = run()
    except (FormatError, FusionError, ArgumentError, ImportError, OSError, TypeError) as error:
        faults = [str(error)]
    for fault in faults:
        console.print(f"npreparam {command}: {fault}", style="red", markup=False, soft_wrap=True)
    return not faults
