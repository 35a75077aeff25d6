"""`gradients`: the estimators of one gradient side by side, as a table and as histograms; and the plain sample, which has none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from npreparam import ops
from npreparam._errors import ArgumentError, UnusedInputError
from npreparam.cli.output import prepare_folder, write_figure, write_json
from npreparam.prob import Normal, measure_valued, pathwise, quadratic_moments, score_function
from npreparam.tape import Tensor, grad

ESTIMATORS: dict[str, Callable[..., Any]] = {
    "score function": score_function,
    "leave-one-out": partial(score_function, baseline="leave_one_out"),
    "optimal baseline": partial(score_function, baseline="optimal"),
    "measure-valued": measure_valued,
    "pathwise": pathwise,
}
PARAMETERS = {"mu": "loc", "sigma": "scale"}
MOST = 10**7  # samples: some hundred bytes for each


def run_gradients(setting: dict[str, float], samples: int, seed: int, folder: tuple[Path, bool], console: Console) -> tuple[list[str], list[str]]:
    """The lesson for E[(z - k)^2], z ~ N(mu, sigma^2), `setting` being mu, sigma and k; what went wrong, and no notes."""
    from npreparam import plots  # now, so that a missing extra is not found out after the sampling

    if samples > MOST:
        raise ArgumentError(f"`samples` (={samples}) must be at most {MOST:,}, which have to fit in memory")
    exact = quadratic_moments(**setting, samples=samples)
    out, overwrite = folder
    prepare_folder(out, overwrite)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    say(f"f(z) = (z - k)^2, z ~ N(mu, sigma^2), mu = {setting['mu']:g}, sigma = {setting['sigma']:g}, k = {setting['k']:g}; {samples:,} samples, "
        f"seed {seed}")
    drawn = simulate(setting, samples, seed, console)
    report: dict[str, Any] = {"setting": setting, "samples": samples, "seed": seed, "gradients": {}}
    for name in PARAMETERS:
        rows = report["gradients"][name] = [row(estimator, gradients[name], exact[estimator][name]) for estimator, gradients in drawn.items()]
        console.print(table(name, rows))
        picture = plots.histograms({estimator: gradients[name] for estimator, gradients in drawn.items()}, rows[0]["true gradient"],
                                   f"d/d{name} of one sample")
        write_figure(out / f"gradients_{name}.png", picture)
    report["plain sample"] = plain_sample(setting, seed)
    say(f"A plain sample, z = rng.normal(mu, sigma), has no gradient: {report['plain sample'] or 'NO ERROR'}.")
    write_json(out / "gradients.json", report)
    say(f"See {out}/gradients_mu.png, gradients_sigma.png and gradients.json.")
    return [] if report["plain sample"] else ["a plain sample was differentiated"], []


def simulate(setting: dict[str, float], samples: int, seed: int, console: Console) -> dict[str, dict[str, Any]]:
    """Every estimator's gradients of single samples with respect to mu and sigma, each from noise of its own."""
    parameters = {"loc": setting["mu"], "scale": setting["sigma"]}
    generators = np.random.default_rng(seed).spawn(len(ESTIMATORS))
    drawn = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for (name, estimator), rng in zip(bar.track(ESTIMATORS.items(), description="estimators"), generators, strict=True):
            found = estimator(partial(objective, setting["k"]), Normal, parameters, samples, rng=rng)
            drawn[name] = {ours: found[theirs] for ours, theirs in PARAMETERS.items()}
    return drawn


def objective(k: float, z: Tensor) -> Tensor:
    """(z - k)^2."""
    return ops.square(ops.sub(z, k))


def row(estimator: str, gradients: Any, exact: Any) -> dict[str, Any]:
    """One line of the table."""
    return {"estimator": estimator, "true gradient": exact.mean, "mean": float(gradients.mean()),
            "standard error": float(gradients.std(ddof=1) / np.sqrt(gradients.size)),
            "variance simulated": float(gradients.var(ddof=1)), "variance exact": exact.variance}


def table(name: str, rows: list[dict[str, Any]]) -> Table:
    """The estimates of one gradient."""
    made = Table("estimator", "mean +- standard error", "variance", "exact", title=f"Gradient with respect to {name}: {rows[0]['true gradient']:.6g}",
                 title_justify="left")
    for line in rows:
        made.add_row(line["estimator"], f"{line['mean']:.5g} +- {line['standard error']:.2g}", f"{line['variance simulated']:.5g}",
                     f"{line['variance exact']:.5g}")
    return made


def plain_sample(setting: dict[str, float], seed: int) -> str:
    """What happens to who draws z from N(mu, sigma^2) itself and asks for the gradient: the error's text."""
    mu, sigma = Tensor(np.array(setting["mu"]), "mu"), Tensor(np.array(setting["sigma"]), "sigma")
    z = Tensor(np.asarray(np.random.default_rng(seed).normal(mu.value, sigma.value)), "z")
    try:
        grad(objective(setting["k"], z), [mu, sigma])
    except UnusedInputError as error:
        return str(error)
    return ""
