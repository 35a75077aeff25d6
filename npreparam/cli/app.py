"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from npreparam import __version__
from npreparam._errors import ArgumentError, FormatError
from npreparam.cli.fuse import Answers, reported, run_fuse, run_verify
from npreparam.cli.output import prepare_folder
from npreparam.cli.tour import Tour, load

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
