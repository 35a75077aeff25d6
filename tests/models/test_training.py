"""The loop: minibatches from the given generator, every step counted, the same bits again."""

import numpy as np
import pytest

from npreparam import ArgumentError, ops
from npreparam.models import VAE, RepVGG, classifier_loss, fit, predict, vae_loss
from npreparam.nn import SGD, Adam, Flatten, Linear, Sequential
from tests.tolerances import assert_same_bits


def digits(count=40):
    """Two kinds of images that a small network tells apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = rng.random((count, 1, 4, 4)).astype(np.float32) / 4
    images[labels == 1, :, :2] += 0.5
    return images, labels


def train(epochs=4, seed=0, **options):
    images, labels = digits()
    rng = np.random.default_rng(seed)
    net = RepVGG(1, 2, (4,), (2,), rng=rng)
    return net, fit(net, classifier_loss(net, images, labels), Adam(net, 1e-2), len(labels), epochs=epochs, batch=8, rng=rng, **options)


def test_loss_falls_and_the_kinds_are_told_apart():
    net, history = train(8)
    images, labels = digits()
    assert len(history) == 8
    assert history[-1] < history[0] / 2
    assert (predict(net, images).argmax(1) == labels).all()


def test_same_seed_same_bits():
    (first, history), (second, again), (other, _) = train(), train(), train(seed=1)
    assert history == again
    for name, value in first.state_dict().items():
        assert_same_bits(value, second.state_dict()[name])
    assert (first.linear.weight.value != other.linear.weight.value).any()


def test_every_epoch_visits_full_minibatches_without_repetition():
    visited = []
    net = Sequential(Flatten(), Linear(16, 2, rng=np.random.default_rng(0)))
    images, labels = digits(22)
    loss = classifier_loss(net, images, labels)

    def spy(chosen):
        visited.append(chosen)
        return loss(chosen)

    calls = []
    fit(net, spy, SGD(net, 0.1), 22, epochs=3, batch=5, rng=np.random.default_rng(0), progress=lambda *call: calls.append(call))
    assert [len(chosen) for chosen in visited] == [5] * 12
    for epoch in range(3):
        seen = np.concatenate(visited[4 * epoch : 4 * epoch + 4])
        assert len(set(seen.tolist())) == 20
    assert (np.concatenate(visited[:4]) != np.concatenate(visited[4:8])).any()
    assert [call[:2] for call in calls] == [(i + 1, 12) for i in range(12)]
    assert all(isinstance(call[2], float) for call in calls)


def test_history_is_the_mean_of_an_epochs_losses():
    net = Sequential(Flatten(), Linear(16, 2, rng=np.random.default_rng(0)))
    images, labels = digits()
    losses = []
    history = fit(net, classifier_loss(net, images, labels), SGD(net, 0.1), 40, epochs=2, batch=8, rng=np.random.default_rng(0),
                  progress=lambda done, total, loss: losses.append(loss))
    assert history == [np.mean(losses[:5]), np.mean(losses[5:])]


def test_vae_loss_is_the_negative_elbo_with_fresh_noise():
    images, _ = digits()
    model = VAE((1, 4, 4), 8, 2, rng=np.random.default_rng(0))
    loss, chosen = vae_loss(model, images, np.random.default_rng(3)), np.arange(6)
    first, second = loss(chosen), loss(chosen)
    rng = np.random.default_rng(3)
    for value in (first, second):
        assert_same_bits(value.value, np.asarray(-ops.mean(model.elbo(images[chosen], model.noise(6, rng)))))
    assert first.value != second.value


def test_the_elbo_improves():
    images, _ = digits()
    rng = np.random.default_rng(0)
    model = VAE((1, 4, 4), 16, 2, rng=rng)
    eps = model.noise(40, rng)
    before = model.elbo(images, eps).mean()
    history = fit(model, vae_loss(model, images, rng), Adam(model, 1e-2), 40, epochs=20, batch=8, rng=rng)
    assert model.elbo(images, eps).mean() > before
    assert history[-1] < history[0]


@pytest.mark.parametrize("batch", [1, 7, 40, 256])
def test_predict_does_not_depend_on_the_batch(batch):
    net, _ = train(1)
    images, _ = digits()
    assert_same_bits(predict(net, images, batch), net(images))
    assert predict(net, images[:0], batch).shape == (0, 2)


def test_predict_refuses_a_batch_of_nothing():
    with pytest.raises(ArgumentError, match=r"`batch` \(=0\) must be positive"):
        predict(train(1)[0], digits()[0], 0)


@pytest.mark.parametrize(("options", "message"), [
    ({"epochs": 0, "batch": 8}, r"`epochs` \(=0\) must be positive"),
    ({"epochs": 1, "batch": 0}, r"`batch` \(=0\) must be positive"),
    ({"epochs": 1, "batch": 41}, r"`batch` \(=41\) must not be larger than the number of samples \(=40\)"),
])
def test_bad_arguments(options, message):
    net = Sequential(Flatten(), Linear(16, 2, rng=np.random.default_rng(0)))
    with pytest.raises(ArgumentError, match=message):
        fit(net, classifier_loss(net, *digits()), SGD(net, 0.1), 40, rng=np.random.default_rng(0), **options)
