"""Mistakes in sampling, densities and divergences of normal distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam.conformance.mistakes._registry import mistake, row
from npreparam.conformance.mistakes.conv2d import first_for_all

LN2, LOG_2PI = math.log(2), math.log(2 * math.pi)
DRAW = {"mu": row(1), "sigma": row(2), "eps": row(3)}
AT = {"x": row(3), "mu": row(1), "sigma": row(2)}
NEAR = {"mu": row(1), "logvar": row(1)}

mistake("normal_rsample", "variance used as the standard deviation", lambda right, mu, sigma, eps: mu + sigma * sigma * eps,
        seen="keras#3283, keras#9972 (KNOWN_BUGS 27)", look="z = mu + sigma*eps; sigma = exp(logvar/2)", example=DRAW)
mistake("normal_rsample", "root of the standard deviation", lambda right, mu, sigma, eps: mu + np.sqrt(sigma) * eps,
        look="sigma is a standard deviation", example=DRAW)
mistake("normal_rsample", "sigma exponentiated", lambda right, mu, sigma, eps: mu + np.exp(sigma) * eps, look="sigma is no logarithm", example=DRAW)
mistake("normal_rsample", "sigma taken for log-variance", lambda right, mu, sigma, eps: mu + np.exp(sigma / 2) * eps, look="sigma is no logarithm",
        example=DRAW)
mistake("normal_rsample", "eps scaled by 0.01", lambda right, mu, sigma, eps: mu + sigma * (eps * 0.01), seen="keras#4211 (KNOWN_BUGS 31)",
        look="eps ~ N(0, 1): otherwise the loss is no bound", example=DRAW)
mistake("normal_rsample", "mean in place of a sample", lambda right, mu, sigma, eps: mu + eps * 0.0, look="noise in evaluation too", example=DRAW)
mistake("normal_rsample", "sigma left out", lambda right, mu, sigma, eps: mu + eps, look="z = mu + sigma*eps", example=DRAW)
mistake("normal_rsample", "mean left out", lambda right, mu, sigma, eps: sigma * eps + mu * 0.0, look="z = mu + sigma*eps", example=DRAW)
mistake("normal_rsample", "noise subtracted", lambda right, mu, sigma, eps: mu - sigma * eps, look="the sign: the same distribution, another sample",
        example=DRAW)
mistake("normal_rsample", "mean scaled too", lambda right, mu, sigma, eps: sigma * (mu + eps), look="z = mu + sigma*eps", example=DRAW)
mistake("normal_rsample", "mu and sigma exchanged", lambda right, mu, sigma, eps: sigma + mu * eps, look="order of the arguments", example=DRAW)
mistake("normal_rsample", "noise of the first sample used for all", lambda right, mu, sigma, eps: mu + sigma * first_for_all(eps, max(1, len(eps))),
        look="one draw for each sample", example={"mu": row(0, 0), "sigma": row(1, 1), "eps": row(1, 2)})
mistake("normal_rsample", "magnitude of the noise", lambda right, mu, sigma, eps: mu + sigma * abs(eps), look="the sign of eps",
        example={**DRAW, "eps": row(-3)})


def density(x: Any, mu: Any, sigma: Any, *, square: float = 0.5, log_sigma: float = 1.0, constant: float = 0.5 * LOG_2PI) -> Any:
    """-(x - mu)^2*square/sigma^2 - log_sigma*log(sigma) - constant."""
    scaled = (x - mu) / sigma
    return -(scaled * scaled) * square - np.log(sigma) * log_sigma - constant


mistake("normal_log_prob", "log(2 pi) left out", lambda right, **a: density(**a, constant=0.0), look="log(2 pi)/2", example=AT)
mistake("normal_log_prob", "log(2 pi) not halved", lambda right, **a: density(**a, constant=LOG_2PI), look="log(2 pi)/2", example=AT)
mistake("normal_log_prob", "log(pi) for log(2 pi)", lambda right, **a: density(**a, constant=0.5 * math.log(math.pi)), look="log(2 pi)/2", example=AT)
mistake("normal_log_prob", "log(sigma) left out", lambda right, **a: density(**a, log_sigma=0.0), look="-log(sigma)", example=AT)
mistake("normal_log_prob", "log(sigma) halved", lambda right, **a: density(**a, log_sigma=0.5), look="log(sigma) = log(sigma^2)/2", example=AT)
mistake("normal_log_prob", "log(sigma) doubled", lambda right, **a: density(**a, log_sigma=2.0), look="log(sigma) = log(sigma^2)/2", example=AT)
mistake("normal_log_prob", "log(sigma) added", lambda right, **a: density(**a, log_sigma=-1.0), look="-log(sigma)", example=AT)
mistake("normal_log_prob", "square not halved", lambda right, **a: density(**a, square=1.0), look="-((x - mu)/sigma)^2/2", example=AT)
mistake("normal_log_prob", "square added", lambda right, **a: density(**a, square=-0.5), look="-((x - mu)/sigma)^2/2", example=AT)
mistake("normal_log_prob", "sigma taken for the variance", lambda right, x, mu, sigma: density(x, mu, np.sqrt(sigma)),
        look="sigma is a standard deviation",
        example=AT)
mistake("normal_log_prob", "variance taken for the standard deviation", lambda right, x, mu, sigma: density(x, mu, sigma * sigma),
        look="sigma is a standard deviation", example=AT)
mistake("normal_log_prob", "distance not divided by sigma", lambda right, x, mu, sigma: density(x - mu, 0.0, sigma / sigma) - np.log(sigma),
        look="((x - mu)/sigma)^2", example=AT)
mistake("normal_log_prob", "distance divided by sigma once", lambda right, x, mu, sigma:
        -((x - mu) * (x - mu) / sigma) / 2 - np.log(sigma) - 0.5 * LOG_2PI,
        look="((x - mu)/sigma)^2", example=AT)
mistake("normal_log_prob", "sign", lambda right, **a: -density(**a), look="log p, not the loss", example=AT)
mistake("normal_log_prob", "density, not its logarithm", lambda right, **a: np.exp(density(**a)), look="the logarithm", example=AT)
mistake("normal_log_prob", "base 2", lambda right, **a: density(**a) / LN2, look="the natural logarithm", example=AT)
mistake("normal_log_prob", "x and sigma exchanged", lambda right, x, mu, sigma: density(sigma, mu, x), look="order of the arguments", example=AT)
mistake("normal_log_prob", "mu and sigma exchanged", lambda right, x, mu, sigma: density(x, sigma, mu), look="order of the arguments", example=AT)


def divergence(mu: Any, logvar: Any, *, square: float = 0.5, variance: float = 0.5, log: float = 0.5, one: float = 0.5) -> Any:
    """mu^2*square + exp(logvar)*variance - logvar*log - one."""
    return mu * mu * square + (np.exp(logvar) * variance - one) - logvar * log


mistake("gaussian_kl", "not halved", lambda right, **a: right.gaussian_kl(**a) * 2.0, look="the factor 1/2", example=NEAR)
mistake("gaussian_kl", "sign", lambda right, **a: -right.gaussian_kl(**a), look="a divergence is never negative", example=NEAR)
mistake("gaussian_kl", "-1 left out", lambda right, **a: divergence(**a, one=0.0), seen="torch-distributions#33 (KNOWN_BUGS 30)",
        look="KL(p, p) = 0", example={"mu": row(0), "logvar": row(0)})
mistake("gaussian_kl", "+1 for -1", lambda right, **a: divergence(**a, one=-0.5), look="KL(p, p) = 0",
        example={"mu": row(0), "logvar": row(0)})
mistake("gaussian_kl", "standard deviation for the variance",
        lambda right, mu, logvar: divergence(mu, logvar) + (np.exp(logvar / 2) - np.exp(logvar)) * 0.5,
        look="exp(logvar), not exp(logvar/2)", example=NEAR)
mistake("gaussian_kl", "logvar taken for log(sigma)", lambda right, mu, logvar: right.gaussian_kl(mu=mu, logvar=logvar * 2.0),
        look="logvar is the logarithm of the variance", example=NEAR)
mistake("gaussian_kl", "logvar taken for the variance", lambda right, mu, logvar: (mu * mu + logvar - np.log(logvar) - 1.0) * 0.5,
        look="logvar is a logarithm", example={"mu": row(1), "logvar": row(2)})
mistake("gaussian_kl", "log of exp(logvar): log(0)", lambda right, mu, logvar: (mu * mu + np.exp(logvar) - np.log(np.exp(logvar)) - 1.0) * 0.5,
        seen="tinygrad#1192, mlx#642 in samplers, which no judged function is (KNOWN_BUGS 28)",
        look="exp underflows where the logarithm is still wanted",
        example={"mu": row(0), "logvar": row(-104)})
mistake("gaussian_kl", "mean not squared", lambda right, mu, logvar: right.gaussian_kl(mu=np.zeros_like(mu), logvar=logvar) + mu / 2, look="mu^2",
        example={"mu": row(2), "logvar": row(1)})
mistake("gaussian_kl", "mean left out", lambda right, mu, logvar: right.gaussian_kl(mu=np.zeros_like(mu), logvar=logvar), look="mu^2", example=NEAR)
mistake("gaussian_kl", "mean's square not halved", lambda right, **a: divergence(**a, square=1.0), look="the factor 1/2", example=NEAR)
mistake("gaussian_kl", "mean's square subtracted", lambda right, **a: divergence(**a, square=-0.5), look="the sign of mu^2", example=NEAR)
mistake("gaussian_kl", "logvar added", lambda right, **a: divergence(**a, log=-0.5), look="the sign of logvar", example=NEAR)
mistake("gaussian_kl", "logvar left out", lambda right, **a: divergence(**a, log=0.0), look="-logvar", example=NEAR)
mistake("gaussian_kl", "variance left out", lambda right, **a: divergence(**a, variance=0.0), look="exp(logvar)", example=NEAR)
mistake("gaussian_kl", "of N(0, 1) from N(mu, exp(logvar))", lambda right, mu, logvar: (logvar + (mu * mu + 1.0) / np.exp(logvar) - 1.0) * 0.5,
        look="which of the two comes first", example=NEAR)
mistake("gaussian_kl", "sum over dimensions", lambda right, **a: np.sum(right.gaussian_kl(**a), axis=-1), look="the reduction",
        example={"mu": row(1, 2), "logvar": row(0, 0)})
mistake("gaussian_kl", "mean over everything", lambda right, **a: np.mean(right.gaussian_kl(**a)), look="the reduction",
        example={"mu": row(1, 2), "logvar": row(0, 0)})
mistake("gaussian_kl", "base 2", lambda right, **a: right.gaussian_kl(**a) / LN2, look="nats", example=NEAR)
