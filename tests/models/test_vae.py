"""The VAE against closed forms, and against the known mistakes of others."""

import math

import numpy as np
import pytest

from npreparam import ArgumentError, UnusedInputError, ops
from npreparam.models import VAE
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_same_bits, assert_within, relative_bound

IMAGE = (1, 4, 3)


def vae(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    model = VAE(IMAGE, 6, 2, rng=rng, dtype=dtype)
    model.update({name: rng.standard_normal(p.shape).astype(dtype) / 2 for name, p in model.parameters().items()})
    return model


def batch(count=5, dtype=np.float64):
    rng = np.random.default_rng(1)
    return rng.random((count, *IMAGE)).astype(dtype), rng.standard_normal((count, 2)).astype(dtype)


def twin(model, x, eps, fault=None):
    """The ELBO of each image from its textbook form, one number at a time in Python floats, and the sum of its terms' magnitudes."""
    p = {name: parameter.value for name, parameter in model.parameters().items()}

    def layer(v, name):
        rows = zip(p[f"{name}.weight"], p[f"{name}.bias"], strict=True)
        return [math.fsum(w * a for w, a in zip(row, v, strict=True)) + b for row, b in rows]

    elbos, sizes = [], []
    for image, noise in zip(x.reshape(len(x), -1), eps, strict=True):
        hidden = [max(0.0, a) for a in layer(image, "encoder")]
        mu, logvar = layer(hidden, "to_mu"), layer(hidden, "to_logvar")
        sigma = [math.exp(v if fault == "exp(logvar) as sigma" else v / 2) for v in logvar]
        noise = [0.0] * len(mu) if fault == "z = mu" else noise
        z = [m + s * e for m, s, e in zip(mu, sigma, noise, strict=True)]
        logits = layer([max(0.0, a) for a in layer(z, "decoder")], "to_logits")
        pixels = [1 / (1 + math.exp(-a)) for a in logits]
        terms = [t * math.log(q) + (1 - t) * math.log(1 - q) for t, q in zip(image, pixels, strict=True)]
        kl = [(math.exp(v) + m * m - 1 - v) * (1.0 if fault == "no half" else 0.5) for m, v in zip(mu, logvar, strict=True)]
        likelihood = math.fsum(terms) / (len(terms) if fault == "mean over the pixels" else 1)
        elbos.append(likelihood + math.fsum(kl) * (1 if fault == "sign of the KL" else -1))
        sizes.append(math.fsum(map(abs, terms + kl)) + math.fsum(map(abs, logits)))
    return np.array(elbos), np.array(sizes)


def bound(model, sizes):
    """Six layers of at most 12 terms, the elementary functions and the final sums: at most 2^8 roundings in each direction.

    They act on numbers of at most the size of the terms times the network's amplification, which for these weights is below
    prod (1 + max row sum |w|) over the decoder's two layers, through which z's error passes.
    """
    amplification = math.prod(1 + np.abs(p.value).sum(1).max() for name, p in model.parameters().items() if name.endswith("weight"))
    return relative_bound(2**8, sizes * amplification, np.float64)


def test_elbo_equals_its_textbook_form():
    model, (x, eps) = vae(), batch()
    expected, sizes = twin(model, x, eps)
    elbo = model.elbo(x, eps)
    assert elbo.shape == (5,)
    assert_within(elbo, expected, bound(model, sizes))


@pytest.mark.parametrize("fault", ["exp(logvar) as sigma", "z = mu", "no half", "mean over the pixels", "sign of the KL"])
def test_known_mistakes_are_caught(fault):
    model, (x, eps) = vae(), batch()
    expected, sizes = twin(model, x, eps, fault)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(model.elbo(x, eps), expected, bound(model, sizes))


def test_logits_of_zero_and_the_prior_give_pixels_times_ln_2():
    """The figure of an untrained decoder: 784 ln 2 = 543.43 for MNIST; here 12 ln 2."""
    model, (x, eps) = vae(), batch()
    model.update({name: np.zeros_like(p.value) for name, p in model.parameters().items()})
    assert_within(model.elbo(x, eps), np.full(5, -12 * math.log(2)), relative_bound(16, 12.0, np.float64))


def test_an_image_has_the_same_elbo_in_every_batch():
    model, (x, eps) = vae(), batch()
    whole = model.elbo(x, eps)
    for i in range(5):
        assert_same_bits(model.elbo(x[i : i + 1], eps[i : i + 1]), whole[i : i + 1])


def test_gradients_reach_the_encoder_through_mu_and_sigma_and_not_through_a_plain_sample():
    model, (x, eps) = vae(), batch()
    mu, logvar = (Tensor(v, name) for v, name in zip(model.encode(x), ("mu", "logvar"), strict=True))
    sigma = ops.exp(ops.mul(logvar, 0.5))
    z = ops.normal_rsample(mu, sigma, eps)
    to_mu, to_sigma = grad(z, [mu, sigma], np.ones(mu.shape))
    assert (to_mu == 1).all()
    assert (to_sigma == eps).all()
    plain = Tensor(np.random.default_rng(0).normal(mu.value, sigma.value))
    for tensor, name in ((mu, "mu"), (logvar, "logvar")):
        with pytest.raises(UnusedInputError, match=f"`{name}`"):
            grad(ops.sum(model.decode(plain)), tensor)
    gradients = grad(ops.mean(model.elbo(x, eps, training=True)), model.parameters())
    assert all(gradients[f"{name}.weight"].any() for name in ("encoder", "to_mu", "to_logvar", "decoder", "to_logits"))


def test_reconstruction_and_samples_are_probabilities_in_the_images_shape():
    model, (x, _) = vae(dtype=np.float32), batch(dtype=np.float32)
    for images, count in ((model(x), 5), (model.sample(7, np.random.default_rng(0)), 7)):
        assert images.shape == (count, *IMAGE)
        assert images.dtype == np.float32
        assert (images > 0).all()
        assert (images < 1).all()
    assert_same_bits(model.sample(3, np.random.default_rng(4)), model.sample(3, np.random.default_rng(4)))


def test_an_empty_batch_has_an_empty_elbo_and_zero_gradients():
    model, (x, eps) = vae(), batch()
    assert model.elbo(x[:0], eps[:0]).shape == (0,)
    assert model(x[:0]).shape == x[:0].shape
    gradients = grad(ops.sum(model.elbo(x[:0], eps[:0], training=True)), model.parameters())
    assert not any(g.any() for g in gradients.values())


@pytest.mark.parametrize("image", [(1, 0, 3), (1, -2, -3)])
def test_an_image_without_pixels_is_refused(image):
    with pytest.raises(ArgumentError, match=r"`image` \(=(0|-2)\) must be positive"):
        VAE(image, rng=np.random.default_rng(0))


def test_every_layer_begins_within_the_root_of_its_inputs():
    """The published set-up; He's normal weights would exceed the limit, and biases of 0 are not drawn."""
    model = VAE((1, 28, 28), 40, 5, rng=np.random.default_rng(0))
    for _, layer in model.children():
        limit = np.float32(layer.weight.shape[1] ** -0.5)
        for p in (layer.weight.value, layer.bias.value):
            assert 0 < np.abs(p).max() <= limit
            assert p.all()


def test_an_extreme_logvar_stays_finite():
    model, (x, eps) = vae(), batch()
    for extreme in (-700.0, 700.0):
        model.update({"to_logvar.weight": np.zeros((2, 6)), "to_logvar.bias": np.full(2, extreme)})
        assert np.isfinite(model.elbo(x, eps)).all()
