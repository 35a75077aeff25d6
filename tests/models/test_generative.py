"""The family of VAEs: each term against its definition, and the known mistakes of others as planted faults."""

import math

import numpy as np
import pytest

from npreparam import ArgumentError, ShapeError, ops
from npreparam.models import IWAE, LIKELIHOODS, VAE, Autoencoder, ConvVAE, evaluate, fit, log_likelihood, vae_loss
from npreparam.nn import Adam, Conv2d
from npreparam.prob import Bernoulli, ContinuousBernoulli, Independent, Normal, kl
from npreparam.tape import grad
from tests.prob.moments import assert_mean
from tests.tolerances import assert_same_bits, assert_within, relative_bound

IMAGE = (1, 4, 3)


def make(kind=VAE, seed=0, **options):
    rng = np.random.default_rng(seed)
    model = kind(IMAGE, 6, 2, rng=rng, dtype=np.float64, **options)
    model.update({name: rng.standard_normal(p.shape) / 2 for name, p in model.parameters().items()})
    return model


def batch(count=5):
    rng = np.random.default_rng(1)
    return rng.random((count, *IMAGE)), rng.standard_normal((count, 2))


def rounding(model, *sizes):
    """At most 2^10 roundings between inputs and a term, on numbers amplified by at most prod(1 + max row sum |w|) over the layers."""
    weights = [np.abs(p.value.reshape(len(p.value), -1)) for name, p in model.parameters().items() if name.endswith("weight")]
    amplification = math.prod(1 + w.sum(1).max() for w in weights)
    return relative_bound(2**10, amplification * (1 + sum(np.abs(size) for size in sizes)), np.float64)


def decoder_law(model, z):
    h = model.decoded(z)
    logits = model.to_logits(h)
    if model.likelihood == "bernoulli":
        return Bernoulli(logits=logits)
    if model.likelihood == "continuous_bernoulli":
        return ContinuousBernoulli(logits=logits)
    return Normal(ops.sigmoid(logits), np.exp(model.to_pixel_logvar(h) / 2))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_terms_are_those_of_the_distributions(likelihood):
    model, (x, eps) = make(likelihood=likelihood), batch()
    if likelihood == "bernoulli":
        x = np.round(x)
    mu, logvar = model.encode(x)
    q = Normal(mu, np.exp(logvar / 2))
    log_p = Independent(decoder_law(model, q.rsample(eps=eps)), 1).log_prob(x.reshape(5, -1))
    found, divergence = model.terms(x, eps)
    assert found.shape == (5,)
    assert divergence.shape == (5, 2)
    assert_within(found, log_p, rounding(model, log_p, 12 * x.size))
    expected = kl(q, Normal(np.zeros(2), np.ones(2)))
    assert_within(divergence, expected, rounding(model, expected))
    assert_within(model.elbo(x, eps), log_p - expected.sum(1), rounding(model, log_p, expected.sum(1), 12 * x.size))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_parameter_has_its_gradient(likelihood):
    model, (x, eps) = make(likelihood=likelihood), batch()
    gradients = grad(ops.mean(model.objective(x, eps, training=True)), model.parameters())
    assert all(g.any() for g in gradients.values())


def test_pixel_means_are_the_decoders():
    x, _ = batch()
    for likelihood in LIKELIHOODS:
        model = make(likelihood=likelihood)
        z = model.encode(x)[0]
        assert_within(model(x).reshape(5, -1), decoder_law(model, z).mean, rounding(model, 1.0))


def test_an_unknown_likelihood_beta_or_kl_is_refused():
    with pytest.raises(ArgumentError, match=r"`likelihood` \(='poisson'\) must be one of bernoulli, continuous_bernoulli, gaussian"):
        make(likelihood="poisson")
    with pytest.raises(ArgumentError, match=r"`beta` \(=-1\)"):
        make(beta=-1)
    with pytest.raises(ArgumentError, match=r"`kl` \(='exact'\) must be one of analytic, sampled"):
        make().terms(*batch(), kl="exact")


def test_images_of_another_size_are_refused():
    with pytest.raises(ShapeError, match=r"`x` has shape \(5, 1, 3, 4\), but must have shape \(N, 1, 4, 3\)"):
        make().elbo(np.zeros((5, 1, 3, 4)), np.zeros((5, 2)))


def test_beta_weights_the_divergence_alone():
    model, (x, eps) = make(beta=4.0), batch()
    log_p, divergence = model.terms(x, eps)
    assert_within(model.objective(x, eps), log_p - 4 * divergence.sum(1), relative_bound(4, np.abs(log_p) + 4 * divergence.sum(1), np.float64))
    assert_same_bits(model.elbo(x, eps), make().elbo(x, eps))


def test_sampled_divergence_has_the_analytic_one_as_its_mean():
    """log q - log p at z has variance sum of (1 - s^2)^2/2 + (mu*s)^2: a quadratic in eps."""
    model, (x, _) = make(), batch(1)
    count = 40_000
    eps = np.random.default_rng(2).standard_normal((count, 2))
    many = np.repeat(x, count, 0)
    mu, logvar = (v[0] for v in model.encode(x))
    variance = (1 - np.exp(logvar)) ** 2 / 2 + mu**2 * np.exp(logvar)
    sampled, analytic = model.terms(many, eps, kl="sampled")[1], model.terms(x, eps[:1])[1][0]
    for i in range(2):
        assert_mean(sampled[:, i], analytic[i], variance[i] * 1.01)


FAULTS = {
    "z = mu": lambda m, x, eps: m.log_likelihood(x, m.encode(x)[0]) - m.terms(x, eps)[1].sum(1),
    "mean over the pixels": lambda m, x, eps: m.terms(x, eps)[0] / m.pixels - m.terms(x, eps)[1].sum(1),
    "mean over the latent dimensions": lambda m, x, eps: m.terms(x, eps)[0] - m.terms(x, eps)[1].mean(1),
    "divergence collapsed to a number": lambda m, x, eps: m.terms(x, eps)[0] - m.terms(x, eps)[1].sum(),
    "eps scaled": lambda m, x, eps: m.elbo(x, 2 * eps),
    "exp(logvar) for sigma": lambda m, x, eps: (lambda mu, lv: m.log_likelihood(x, mu + np.exp(lv) * eps) - m.terms(x, eps)[1].sum(1))(*m.encode(x)),
    "sigma for its square": lambda m, x, eps: (lambda mu, lv: m.terms(x, eps)[0] - ops.gaussian_kl(mu, lv / 2).sum(1))(*m.encode(x)),
    "no half": lambda m, x, eps: m.terms(x, eps)[0] - 2 * m.terms(x, eps)[1].sum(1),
    "sign of the divergence": lambda m, x, eps: m.terms(x, eps)[0] + m.terms(x, eps)[1].sum(1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_known_mistakes_are_caught(fault):
    model, (x, eps) = make(), batch()
    x = np.round(x)
    mu, logvar = model.encode(x)
    q = Normal(mu, np.exp(logvar / 2))
    log_p = Independent(decoder_law(model, q.rsample(eps=eps)), 1).log_prob(x.reshape(5, -1))
    divergence = kl(q, Normal(np.zeros(2), np.ones(2))).sum(1)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(FAULTS[fault](model, x, eps), log_p - divergence, rounding(model, log_p, divergence, 12 * x.size))


def test_the_ratio_of_the_terms_does_not_depend_on_the_batch():
    """Which a mean over the batch in one term and a sum in the other would change."""
    model, (x, eps) = make(), batch()
    terms = [model.terms(np.repeat(x, n, 0), np.repeat(eps, n, 0)) for n in (1, 4)]
    ratios = [np.mean(divergence.sum(1)) / np.mean(log_p) for log_p, divergence in terms]
    assert_within(ratios[1], ratios[0], relative_bound(128, ratios[0], np.float64))


def test_untrained_mnist_decoder_gives_784_ln_2():
    model = VAE((1, 28, 28), 10, 3, rng=np.random.default_rng(0), dtype=np.float64)
    model.update({name: np.zeros_like(p.value) for name, p in model.parameters().items()})
    x = np.random.default_rng(0).random((2, 1, 28, 28))
    log_p, divergence = model.terms(x, np.ones((2, 3)))
    assert_within(-log_p, np.full(2, 784 * math.log(2)), relative_bound(784, 784.0, np.float64))
    assert not divergence.any()


def test_evaluation_depends_on_the_noise_and_training_noise_has_the_normal_moments():
    model, (x, _) = make(), batch()
    one, two = (evaluate(model, x, np.random.default_rng(seed)).loss for seed in (0, 1))
    assert (one != two).all()
    eps = make().noise(40_000, np.random.default_rng(0)).ravel()
    assert_mean(eps, 0, 1)
    assert_mean(eps**2, 1, 2)


@pytest.mark.parametrize("kind", [VAE, IWAE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("extreme", [-1e3, 1e3])
def test_an_extreme_log_variance_stays_finite_and_still_has_a_gradient(kind, dtype, extreme):
    rng = np.random.default_rng(0)
    model = kind(IMAGE, 6, 2, rng=rng, dtype=dtype)
    model.update({"to_logvar.bias": np.full(2, extreme, dtype)})
    x = rng.random((5, *IMAGE)).astype(dtype)
    eps = model.noise(5, rng)
    assert np.isfinite(model.objective(x, eps)).all()
    g = grad(ops.mean(model.objective(x, eps, training=True)), model.parameters())
    assert all(np.isfinite(v).all() for v in g.values())
    assert g["to_logvar.bias"].any()


def test_importance_weights_are_their_definition():
    model, (x, _) = make(IWAE, samples=3), batch()
    eps = model.noise(5, np.random.default_rng(0))
    assert eps.shape == (3, 5, 2)
    mu, logvar = model.encode(x)
    for k in range(3):
        z = mu + np.exp(logvar / 2) * eps[k]
        expected = (model.log_likelihood(x, z) + Normal(0.0, 1.0).log_prob(z).sum(1) - Normal(mu, np.exp(logvar / 2)).log_prob(z).sum(1))
        assert_within(model.log_weights(x, eps)[k], expected, rounding(model, expected, 100.0))
    w = model.log_weights(x, eps)
    assert_within(model.bound(x, eps), np.log(np.exp(w).mean(0)), relative_bound(64, 1 + np.abs(w).sum(0), np.float64))
    with pytest.raises(ShapeError, match=r"`eps` has shape \(5, 2\), but must have shape \(K, 5, 2\)"):
        model.log_weights(x, eps[0])


def test_the_bound_of_one_sample_is_the_elbo_with_sampled_divergence_and_more_samples_raise_it():
    model, (x, eps) = make(IWAE), batch()
    assert_within(model.bound(x, eps[None]), model.elbo(x, eps, kl="sampled"), rounding(model, 100.0))
    rng = np.random.default_rng(0)
    eps = rng.standard_normal((200, 50, 5, 2))
    few, many = (np.mean([model.bound(x, e[:k]) for e in eps], 0) for k in (1, 50))
    assert (many > few).all()


def test_streamed_log_likelihood_is_the_bound_of_all_samples_and_approaches_the_truth():
    """With a decoder that ignores z and the prior as q, every weight is p(x)."""
    model, (x, _) = make(), batch(3)
    found = log_likelihood(model, x, np.random.default_rng(4), samples=50).per_image
    w = model.log_weights(x, np.random.default_rng(4).standard_normal((50, 3, 2)))
    assert_within(found, np.log(np.exp(w).mean(0)), relative_bound(256, 1 + np.abs(w).max(0), np.float64))
    model.update({"decoder.weight": np.zeros((6, 2))})
    for layer in ("to_mu", "to_logvar"):
        model.update({f"{layer}.weight": np.zeros((2, 6)), f"{layer}.bias": np.zeros(2)})
    exact = model.log_likelihood(x, np.zeros((3, 2)))
    assert_within(log_likelihood(model, x, np.random.default_rng(0), 5000).per_image, exact, rounding(model, exact))
    with pytest.raises(ArgumentError, match="`images` is empty"):
        log_likelihood(model, x[:0], np.random.default_rng(0))


def test_standard_error_is_that_of_the_mean():
    found = log_likelihood(make(), batch()[0], np.random.default_rng(0), 10)
    assert found.mean == found.per_image.mean()
    expected = math.sqrt(((found.per_image - found.mean) ** 2).sum() / 4 / 5)
    assert_within(found.standard_error, expected, relative_bound(32, expected, np.float64))


def test_active_units_are_those_whose_mean_varies():
    model, (x, _) = make(), batch()
    w = model.to_mu.weight.value.copy()
    w[0], w[1] = 20 * w[0], 0
    model.update({"to_mu.weight": w})
    found = evaluate(model, x, np.random.default_rng(0), batch=2)
    assert found.active.tolist() == [True, False]
    assert found.kl.shape == (5, 2)
    assert_same_bits(found.mu, model.encode(x)[0])
    with pytest.raises(ArgumentError, match="`images` is empty"):
        evaluate(model, x[:0], np.random.default_rng(0))


@pytest.mark.parametrize("image", [(1, 8, 8), (2, 7, 9), (1, 5, 4)])
def test_the_convolutional_vae_trains_and_fuses(image):
    rng = np.random.default_rng(0)
    model = ConvVAE(image, 3, (4, 6), rng=rng)
    images = rng.random((24, *image)).astype(np.float32)
    history = fit(model, vae_loss(model, images, rng), Adam(model, 3e-3), 24, epochs=6, batch=8, rng=rng)
    assert history[-1] < history[0]
    fused = model.fuse()
    assert sum(isinstance(layer, Conv2d) for layer in fused.encoder) == 2
    wide, twin = model.astype(np.float64), model.astype(np.float64).fuse()
    x = images.astype(np.float64)
    assert_within(twin(x), wide(x), rounding(wide, 1.0))
    assert fused(images).shape == images.shape
    with pytest.raises(ArgumentError, match="`widths`"):
        ConvVAE(image, 3, (), rng=rng)


def test_an_autoencoder_learns_and_has_no_divergence():
    rng = np.random.default_rng(0)
    model = Autoencoder((1, 4, 4), 16, 2, rng=rng)
    images = np.zeros((40, 1, 4, 4), np.float32)
    images[::2, :, :2] = 1
    before = model.elbo(images, model.noise(40, rng)).mean()
    fit(model, vae_loss(model, images, rng), Adam(model, 1e-2), 40, epochs=40, batch=8, rng=rng)
    log_p, divergence = model.terms(images, model.noise(40, rng))
    assert log_p.mean() > before / 4
    assert not divergence.any()
    with pytest.raises(ArgumentError, match="no importance weights"):
        model.log_weights(images, np.zeros((1, 40, 2)))
