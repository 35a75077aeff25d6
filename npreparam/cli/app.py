"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from npreparam import __version__
from npreparam._errors import ArgumentError, FormatError
from npreparam.cli.output import prepare_folder
from npreparam.cli.tour import Tour, load

app = typer.Typer(help="Structural and generative re-parameterization, from scratch in NumPy and Numba.", no_args_is_help=True,
                  add_completion=False, pretty_exceptions_enable=False)


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
