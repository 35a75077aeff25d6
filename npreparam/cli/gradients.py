"""The lesson of re-parameterization: estimators of the gradient of E[(z - k)^2], z ~ N(mu, sigma^2), side by side with their exact variances."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from npreparam import ops
from npreparam._errors import ArgumentError, UnusedInputError
from npreparam.cli.output import write_figure, write_json
from npreparam.prob import Normal, estimators

PARAMETERS = {"mu": "loc", "sigma": "scale"}


def exact(a: float, s: float) -> dict[str, dict[str, float]]:
    """Variance of each estimator for one sample, a = mu - k, s = sigma.

    Source: Mohamed et al., Monte Carlo gradient estimation in machine learning, JMLR 21(132), 2020, figure 2, in closed form.
    """
    return {"pathwise": {"mu": 4 * s**2, "sigma": 4 * a**2 + 8 * s**2},
            "measure-valued, coupled": {"mu": a**2 * (16 / math.pi - 4), "sigma": 4 * a**2 + 4 * s**2},
            "score, optimal baseline": {"mu": 8 * a**2 + 6 * s**2, "sigma": 40 * a**2 + 24 * s**2},
            "score function": {"mu": a**4 / s**2 + 14 * a**2 + 15 * s**2, "sigma": 2 * a**4 / s**2 + 60 * a**2 + 74 * s**2}}


class Lesson:
    """One run of the command."""

    def __init__(self, mu: float, sigma: float, k: float, samples: int, seed: int, console: Console) -> None:
        from npreparam import plots  # now, so that a missing extra is not found out later

        if not (0 < sigma < math.inf and math.isfinite(mu) and math.isfinite(k)):
            raise ArgumentError(f"--sigma (={sigma}) must be positive, --mu (={mu}) and --k (={k}) finite")
        self.mu, self.sigma, self.k, self.samples, self.seed, self.console, self.plots = mu, sigma, k, samples, seed, console, plots

    def objective(self, z: Any) -> Any:
        """(z - k)^2."""
        return ops.square(ops.sub(z, self.k))

    def estimates(self) -> dict[str, dict[str, Any]]:
        """Every estimator's gradients, one for each sample."""
        a, s, rng = self.mu - self.k, self.sigma, np.random.default_rng(self.seed)
        given: tuple[Any, ...] = (self.objective, Normal, {"loc": self.mu, "scale": s})
        eps = rng.standard_normal(self.samples)
        best = {"loc": a**2 + 3 * s**2, "scale": a**2 + 5 * s**2}
        found = {"pathwise": estimators.pathwise(*given, eps),
                 "measure-valued, coupled": estimators.measure_valued(*given, estimators.measure_noise((self.samples,), rng)),
                 "score, optimal baseline": estimators.score_function(*given, eps, best),
                 "score function": estimators.score_function(*given, eps)}
        return {name: {told: gradients[parameter] for told, parameter in PARAMETERS.items()} for name, gradients in found.items()}

    def plain(self) -> str:
        """The error of differentiating through a sample that was drawn as a number; empty where there was none."""
        try:
            estimators.plain_sample(self.objective, Normal, {"loc": self.mu, "scale": self.sigma}, np.zeros(1))
        except UnusedInputError as error:
            return str(error)
        return ""

    def run(self, out: Path) -> bool:
        """Table, picture and report; whether the plain sample raised."""
        found, variances = self.estimates(), exact(self.mu - self.k, self.sigma)
        truth = {"mu": 2 * (self.mu - self.k), "sigma": 2 * self.sigma}
        table = Table(title=f"d/dmu and d/dsigma of E[(z - k)^2], z ~ N(mu, sigma^2); mu {self.mu:g}, sigma {self.sigma:g}, k {self.k:g}; "
                            f"{self.samples} samples")
        for column in ("estimator", "d/dmu", "variance", "exact", "d/dsigma", "variance", "exact"):
            table.add_column(column, justify="left" if column == "estimator" else "right")
        report: dict[str, Any] = {"samples": self.samples, "seed": self.seed, "truth": truth, "estimators": {}}
        for name, gradients in found.items():
            row, cells = {}, []
            for told, g in gradients.items():
                row[told] = {"mean": float(g.mean()), "variance": float(g.var()), "exact variance": variances[name][told]}
                cells += [f"{value:.4g}" for value in row[told].values()]
            report["estimators"][name] = row
            table.add_row(name, *cells)
        table.add_row("truth", f"{truth['mu']:g}", "", "", f"{truth['sigma']:g}", "", "")
        self.console.print(table)
        report["plain sample"] = message = self.plain()
        self.console.print(f"A plain sample of N(mu, sigma^2), without re-parameterization: {message or 'NO ERROR'}", markup=False, highlight=False,
                           soft_wrap=True)
        write_figure(out / "gradients.png", self.plots.gradient_histograms(found, variances, truth))
        write_json(out / "gradients.json", report)
        self.console.print(f"See {out}/gradients.png.", markup=False, highlight=False, soft_wrap=True)
        return bool(message)
