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
from npreparam.cli.fuse import reported, run_fuse, run_verify
from npreparam.cli.gradients import run_gradients
from npreparam.cli.graph import is_graph, run_fuse_graph, run_verify_graph
from npreparam.cli.options import Answers, Reports, grouped
from npreparam.cli.output import prepare_folder
from npreparam.cli.tour import Tour, load
from npreparam.cli.train import train
from npreparam.conformance.cluster import connected

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


Source = Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint: safetensors, PyTorch, npz, ONNX.")]
Largest = Annotated[bool, typer.Option("--largest", help="Fuse also blocks that become larger by it.")]


@app.callback(invoke_without_command=True)
def common(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Structural and generative re-parameterization, from scratch in NumPy and Numba.

    Examples: npreparam tour

    npreparam fuse model.pth deploy.safetensors --eps 1e-5

    npreparam judge mymodule:target --budget 60s

    Every command explains itself: npreparam fuse --help
    """
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
    """Train a RepVGG classifier and a VAE on handwritten digits, fuse, verify, and write a report with pictures.

    Example: npreparam tour --out lesson --seed 1
    """
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
@grouped
def fuse(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors or .npz; .onnx from an ONNX graph.")],
    answers: Answers,
    reports: Reports,
    dtype: Annotated[str | None, typer.Option(help="float16, bfloat16, float32 or float64.", show_default="the block's own")] = None,
    largest: Largest = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no weights.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write although some blocks cannot be fused, with their tensors as they are, and end "
                                                        "with status 0. Blocks beyond their bounds are never written.")] = False,
) -> None:
    r"""Fuse every block of a checkpoint into one convolution, with a bound on the difference for each; exit status 0 only if all hold.

    From an ONNX graph to another every linear region is fused, whatever its block is called.

    Example: npreparam fuse model.pth deploy.safetensors --eps 1e-5 --html certificate.html

    A block is fused only if one convolution has no more weights than its parts have together, or if --largest is given.
    Else its convolutions stay, with the batch norms behind them folded.

    A pattern file for --family has tables like this one, paths being relative to the block, "?" marking what may be absent:

        [\[pattern]]
        family = "mine"
        expression = "sum(conv_bn(big, big_bn), bn(skip)?, identity())"
        fused = "merged"
        eps = 1e-4
        stride = 1
    """
    choices = {"dtype": dtype, "largest": largest, "dry_run": dry_run, "force": force}
    run = run_fuse_graph if is_graph(out) else run_fuse
    if not reported("fuse", lambda: run(source, out, answers, reports, choices, Console())):
        raise typer.Exit(1)


@app.command()
@grouped
def verify(
    source: Source,
    fused: Annotated[Path, typer.Argument(metavar="FUSED", help="What `fuse` wrote.")],
    answers: Answers,
    reports: Reports,
    force: Annotated[bool, typer.Option("--force", help="Accept blocks that cannot be fused, if their tensors are as they were.")] = False,
) -> None:
    """Check from the two files that one is the other with its blocks fused; answers that `fuse` was given are taken from the fused file.

    Example: npreparam verify model.pth deploy.safetensors
    """
    run = run_verify_graph if is_graph(fused) else run_verify
    if not reported("verify", lambda: run(source, fused, answers, reports, force, Console())):
        raise typer.Exit(1)


@app.command()
@grouped
def judge(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A built-in adapter, module, module:attribute or file.py:attribute.")],
    cases: judging.Cases,
    files: judging.Files,
    running: judging.Running,
) -> None:
    """Put an implementation on trial against the reference; exit status 0 if it conforms, 1 if not, 2 if it could not be judged.

    Examples: npreparam judge pytorch --html verdict.html

    npreparam judge mymodule:target --ops conv2d,linear --budget 30s --scripts failures
    """
    try:
        trial = judging.Trial.of(target, cases, files, running)
        with nullcontext() if running.scheduler is None else connected(running.scheduler) as executor:
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
    """Write golden vectors: inputs, attributes, correctly rounded results and sound bounds, for tests in any language.

    Example: npreparam vectors golden --format npz --ops conv2d,batch_norm
    """
    try:
        ok = writing.check(folder, Console()) if check else not writing.write(folder, form, ops, dtypes, seed, count, overwrite, Console())
    except (FormatError, ArgumentError, DTypeError, ImportError, OSError) as error:
        Console(stderr=True).print(f"npreparam vectors: {error}", style="red", markup=False, soft_wrap=True)
        ok = False
    if not ok:
        raise typer.Exit(1)


app.command()(grouped(train))


@app.command()
def gradients(
    samples: Annotated[int, typer.Option(min=2, help="Gradients to draw with each estimator.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers: same seed, same bits.")] = 0,
    mu: Annotated[float, typer.Option(help="Mean of z.")] = 1.0,
    sigma: Annotated[float, typer.Option(help="Standard deviation of z.")] = 1.0,
    k: Annotated[float, typer.Option(help="Where f is least.")] = -3.0,
    out: Annotated[Path, typer.Option(help="Folder for the histograms and the table as JSON.")] = Path("npreparam-gradients"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False,
) -> None:
    """Estimate the gradient of E[(z - k)^2], z ~ N(mu, sigma^2), in five ways, and compare their variances with the exact ones.

    Score function, without a baseline, with the other samples' mean and with the constant of least variance; measure-valued; pathwise.
    Pathwise is through z = mu + sigma*eps. A plain sample of z has no gradient at all, which is shown, too.

    Example: npreparam gradients --mu 1 --sigma 0.5 --k -3 --samples 200000 --out lesson
    """
    setting = {"mu": mu, "sigma": sigma, "k": k}
    if not reported("gradients", lambda: run_gradients(setting, samples, seed, (out, overwrite), Console())):
        raise typer.Exit(1)
