"""The commands."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from npreparam import __version__
from npreparam._errors import ArgumentError, DTypeError, FormatError
from npreparam.cli import judge as judging
from npreparam.cli import vectors as writing
from npreparam.cli.fuse import Answers, reported, run_fuse, run_verify
from npreparam.cli.output import prepare_folder
from npreparam.cli.tour import Tour, load
from npreparam.conformance.cluster import connected

app = typer.Typer(help="Structural and generative re-parameterization, from scratch in NumPy and Numba.", no_args_is_help=True,
                  add_completion=False, pretty_exceptions_enable=False)


Source = Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint: safetensors, PyTorch, npz, ONNX.")]
Family = Annotated[str, typer.Option(help="auto, a family's name, or a TOML file of your own patterns.")]
Eps = Annotated[float | None, typer.Option(min=0, help="The batch norms' eps, where the family does not tell it.")]
Stride = Annotated[int | None, typer.Option(min=1, help="The blocks' stride.")]
Skip = Annotated[bool | None, typer.Option("--identity/--no-identity", help="Whether x itself is added where that leaves no tensor.")]
Transposed = Annotated[list[str] | None, typer.Option(help='A transposed convolution, once for each; "" for none.')]
Largest = Annotated[float, typer.Option(min=0, help="The bounds are for inputs of at most this magnitude.")]
Report = Annotated[Path | None, typer.Option(help="Also write the table and the files' hashes as JSON.")]


@app.callback(invoke_without_command=True)
def common(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Structural and generative re-parameterization, from scratch in NumPy and Numba."""
    if version:
        typer.echo(f"npreparam {__version__}")
        raise typer.Exit


@app.command()
def tour(
    out: Annotated[Path, typer.Option(help="Folder for the report, the weights and the pictures.")] = Path("npreparam-tour"),
    mnist: Annotated[Path | None, typer.Option(help="Folder with MNIST's four IDX files, gz or not, for the bundled digits.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers: same seed, same bits.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of the classifier.", show_default="15; 1 for MNIST")] = None,
    vae_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of the VAE.", show_default="40; 1 for MNIST")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False,
) -> None:
    """Train a RepVGG classifier and a VAE on handwritten digits, fuse, verify, and write a report with pictures."""
    console = Console()
    try:
        run = Tour(load(mnist), seed, epochs, vae_epochs, console)
        prepare_folder(out, overwrite)
        ok = run.run(out)
    except (FormatError, ArgumentError, ImportError, OSError) as error:
        Console(stderr=True).print(f"npreparam tour: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if not ok:
        raise typer.Exit(1)


@app.command()
def fuse(
    source: Source,
    out: Annotated[Path, typer.Argument(help="File to write, .safetensors or .npz.")],
    family: Family = "auto",
    dtype: Annotated[str | None, typer.Option(help="float16, bfloat16, float32 or float64.", show_default="the block's own")] = None,
    eps: Eps = None, stride: Stride = None, identity: Skip = None, transposed: Transposed = None, largest: Largest = 1.0, report: Report = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no weights.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write although some blocks cannot be fused, with their tensors as they are.")] = False,
) -> None:
    """Fuse every block of a checkpoint into one convolution, with a bound on the difference for each; exit status 0 only if all hold."""
    answers = Answers(family, eps, stride, identity, None if transposed is None else tuple(filter(None, transposed)))
    options = {"dtype": dtype, "largest": largest, "report": report, "dry_run": dry_run, "force": force}
    if not reported("fuse", lambda: run_fuse(source, out, answers, options, Console())):
        raise typer.Exit(1)


@app.command()
def verify(
    source: Source,
    fused: Annotated[Path, typer.Argument(metavar="FUSED", help="What `fuse` wrote.")],
    family: Family = "auto", eps: Eps = None, stride: Stride = None, identity: Skip = None, transposed: Transposed = None,
    largest: Largest = 1.0, report: Report = None,
) -> None:
    """Check from the two files that one is the other with its blocks fused; give the same answers as to `fuse`."""
    answers = Answers(family, eps, stride, identity, None if transposed is None else tuple(filter(None, transposed)))
    if not reported("verify", lambda: run_verify(source, fused, answers, {"largest": largest, "report": report}, Console())):
        raise typer.Exit(1)


@app.command()
def judge(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A built-in adapter, module, module:attribute or file.py:attribute.")],
    ops: Annotated[str | None, typer.Option(help="Functions, between commas.", show_default="all that the target offers")] = None,
    dtypes: Annotated[str | None, typer.Option(help="float16, bfloat16, float32, float64.", show_default="those declared")] = None,
    profile: Annotated[str | None, typer.Option(help="Arithmetic to judge by, for the declared one: float32, tf32, winograd_f4_3, ...")] = None,
    budget: Annotated[str, typer.Option(help="Time for the cases; whole rounds are judged, the first in any case.")] = "60s",
    rounds: Annotated[int | None, typer.Option(min=1, help="Judge so many rounds, whatever the time.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all cases: same seed and rounds, same report.")] = 0,
    isolate: Annotated[bool | None, typer.Option("--isolate/--no-isolate", help="Run the target in a process of its own.",
                                                 show_default="yes for built-in adapters")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes to judge in.")] = 1,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Judge on the Dask cluster there, such as tcp://host:8786.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write the report as a page.")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write the report as JUnit XML.")] = None,
    known_failures: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Patterns of keys, one a line, that may fail.")] = None,
    scripts: Annotated[Path | None, typer.Option(help="Folder for stand-alone scripts of the smallest failing cases.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the interrupted report that --json names.")] = False,
) -> None:
    """Put an implementation on trial against the reference; exit status 0 if it conforms, 1 if not, 2 if it could not be judged."""
    given = {"json": json_file, "html": html_file, "junit": junit_file, "known failures": known_failures, "scripts": scripts}
    try:
        formats = None if dtypes is None else tuple(part.strip() for part in dtypes.split(","))
        trial = judging.Trial(target, judging.as_ops(ops), formats, profile, judging.as_seconds(budget), rounds, seed, isolate, jobs,
                              {name: path for name, path in given.items() if path is not None}, resume)
        with nullcontext() if scheduler is None else connected(scheduler) as executor:
            status = judging.judge(trial, Console(), executor)
    except (FormatError, ArgumentError, ImportError, OSError) as error:
        Console(stderr=True).print(f"npreparam judge: {error}", style="red", markup=False, soft_wrap=True)
        status = judging.COULD_NOT
    raise typer.Exit(status)


@app.command()
def vectors(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into, or to check.")],
    form: Annotated[str, typer.Option("--format", help="npz, onnx or safetensors.")] = "safetensors",
    ops: Annotated[str | None, typer.Option(help="Functions, between commas.", show_default="all; for onnx, those with an operator")] = None,
    dtypes: Annotated[str, typer.Option(help="float16, bfloat16, float32, float64.")] = "float32,float64",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all cases: same seed, same bytes.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Cases of each kind, function and dtype.")] = 6,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing: check the folder against its manifest.")] = False,
) -> None:
    """Write golden vectors: inputs, attributes, correctly rounded results and sound bounds, for tests in any language."""
    try:
        ok = writing.check(folder, Console()) if check else not writing.write(folder, form, ops, dtypes, seed, count, overwrite, Console())
    except (FormatError, ArgumentError, DTypeError, ImportError, OSError) as error:
        Console(stderr=True).print(f"npreparam vectors: {error}", style="red", markup=False, soft_wrap=True)
        ok = False
    if not ok:
        raise typer.Exit(1)
