"""The command `train`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from npreparam._errors import ArgumentError, FormatError, StateError
from npreparam.cli.training import Training
from npreparam.models import load_images

STOPPED = 130  # the usual exit status after Ctrl-C
EXPECTED = (FormatError, ArgumentError, StateError, ImportError, OSError)


@dataclass(frozen=True)
class Settings:
    """Options: the model and its training."""

    epochs: Annotated[int, typer.Option(min=1, help="Epochs in all, those before a --resume included.")] = 10
    batch: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 128
    rate: Annotated[float, typer.Option(help="The optimizer's step size.")] = 1e-3
    optimizer: Annotated[str, typer.Option(help="adam, or adagrad (usually with a --rate of 0.01 to 0.1).")] = "adam"
    hidden: Annotated[int, typer.Option(min=1, help="Units of the hidden layers.")] = 400
    latent: Annotated[int, typer.Option(min=1, help="Latent dimensions; 2 also draws the manifold.")] = 20
    likelihood: Annotated[str, typer.Option(help="bernoulli (grey pixels: a cross-entropy), continuous_bernoulli or gaussian.")] = "bernoulli"
    beta: Annotated[float, typer.Option(min=0, help="Weight of the divergence (beta-VAE).")] = 1.0
    samples: Annotated[int, typer.Option(min=1, help="Importance samples of an IWAE's bound.")] = 5
    convolutional: Annotated[bool, typer.Option("--convolutional", help="A convolutional VAE with RepVGG blocks as encoder.")] = False
    nll: Annotated[int, typer.Option(min=0, help="Importance samples of the NLL at the end; 5000 is usual, 0 for none.")] = 0
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers: same seed, same bits.")] = 0
    every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500


@dataclass(frozen=True)
class Places:
    """Options: where images come from and results go."""

    data: Annotated[str, typer.Option(help="digits, mnist, frey, or an npz file of images.")] = "digits"
    folder: Annotated[Path | None, typer.Option("--folder", "--mnist", help="Folder of MNIST's four IDX files, or Frey's npz file.",
                                                show_default="mnist/ or freyfaces/ in $NPREPARAM_DATA")] = None
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, curves, pictures and summary.")] = Path("npreparam-train")
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out, with the same bits as without the stop.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="vae, iwae or autoencoder.")],
    places: Places,
    settings: Settings,
) -> None:
    """Train a generative model on images; Ctrl-C saves and stops (exit status 130), --resume goes on exactly.

    Example: npreparam train vae --data mnist --mnist folder --epochs 10 --out run; a latent space that can be drawn: --latent 2
    """
    try:
        run = Training(model, load_images(places.data, places.folder), asdict(settings), Console())
        run.prepare(places.out, places.overwrite, places.resume)
        finished = run.run(places.out)
    except EXPECTED as error:
        _refuse("train", error)
    if not finished:
        raise typer.Exit(STOPPED)


def _refuse(command: str, error: Exception) -> None:
    """One line, and exit status 1."""
    line = " ".join(str(error).split())
    Console(stderr=True).print(f"npreparam {command}: {line}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1) from None
