"""Figures of the generative models on real data: python benchmarks/bench_vae.py speed|epochs|mnist|frey|iwae DATA [results.json]

DATA is a folder with mnist/ and freyfaces/. Needs the extra `peers` for `speed` and `epochs`, which time a training step, and whole epochs, of
the usual small VAE (784-400-20, ReLU, Adam 1e-3, batch 128, float32) beside the same model in PyTorch: both sides in one process take turns, and
short turns during which other processes used the CPUs are measured again. The other figures are trainings with a seed; shortened schedules say so.
"""

import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import measure
from npreparam import ops
from npreparam.kernels._threads import awake
from npreparam.models import IWAE, VAE, Session, evaluate, load_images, log_likelihood, vae_loss
from npreparam.models.training import train_step
from npreparam.nn import Adam, Linear

SEED = 1
HIDDEN, LATENT, BATCH, RATE = 400, 20, 128, 1e-3
TURN, TURNS, LIMIT = 0.4, 8, 120.0  # seconds of a turn, turns wanted of each side, seconds in all
EPOCH_TURNS = 3
FOREIGN = 0.1  # CPUs that other processes may use during a turn
FREY = {"batch": 100, "hidden": 200, "rates": (0.01, 0.02, 0.1), "trial epochs": 10, "epochs": 500}
IWAE_RUN = {"batch": 100, "hidden": 200, "latent": 50, "rate": 1e-3, "epochs": 6, "NLL images": 1000, "samples": 5000}


def twin():
    """The same model in PyTorch."""
    import torch
    import torch.nn.functional as F

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layer = torch.nn.Linear
            self.encoder, self.mu, self.logvar = layer(784, HIDDEN), layer(HIDDEN, LATENT), layer(HIDDEN, LATENT)
            self.decoder, self.logits = layer(LATENT, HIDDEN), layer(HIDDEN, 784)

        def loss(self, x):
            h = F.relu(self.encoder(x))
            mu, logvar = self.mu(h), self.logvar(h)
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
            cross_entropy = F.binary_cross_entropy_with_logits(self.logits(F.relu(self.decoder(z))), x, reduction="sum")
            return (cross_entropy - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())) / len(x)

    return Theirs()


def steps(images):
    """The step of each side as a function without arguments, under its name."""
    import torch
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = VAE((1, 28, 28), HIDDEN, LATENT, rng=rng)
    loss, optimizer = vae_loss(model, images, rng), Adam(model, RATE)
    chosen = rng.permutation(len(images))[: len(images) // BATCH * BATCH].reshape(-1, BATCH)
    state = {"i": 0}

    def following():
        state["i"] += 1
        return chosen[state["i"] % len(chosen)]

    def ours():
        with awake():  # as in every training loop of ours
            return train_step(model, loss, optimizer, following())

    flat = torch.from_numpy(images.reshape(len(images), -1))

    def theirs(fused):
        model = twin()
        adam = torch.optim.Adam(model.parameters(), lr=RATE, fused=fused)

        def step():
            adam.zero_grad()
            value = model.loss(flat[torch.from_numpy(following())])
            value.backward()
            adam.step()
            return value.item()

        return step

    return {"npreparam": ours, "PyTorch": theirs(False), "PyTorch, fused Adam": theirs(True)}


def epochs(images):
    """Seconds of whole epochs of training, every image once in shuffled minibatches, the sides taking turns."""
    count = len(images) // BATCH
    sides, taken = steps(images), {}
    for _ in range(EPOCH_TURNS):
        for name, step in sides.items():
            taken.setdefault(name, []).append(measure.once(lambda step=step: [step() for _ in range(count)]))
    ours = statistics.median(taken["npreparam"])
    return {name: {"seconds": seconds, "median": statistics.median(seconds), "speed of npreparam relative to it": statistics.median(seconds) / ours}
            for name, seconds in taken.items()}


def busy_seconds():
    """CPU seconds that all processes, and this one, have used."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    mine = os.times()
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK"), mine.user + mine.system


def turn(step):
    """Seconds of each step of a turn, and the CPUs that others used meanwhile."""
    time.sleep(measure.PAUSE)
    for _ in range(5):
        step()
    times, begin, (everybody, mine) = [], time.perf_counter(), busy_seconds()
    while time.perf_counter() - begin < TURN:
        times.append(measure.once(step))
    after = busy_seconds()
    return times, ((after[0] - everybody) - (after[1] - mine)) / (time.perf_counter() - begin)


def speed(images):
    """Medians over quiet turns; without any, over those with the least foreign load, which is told."""
    from npreparam.kernels._threads import awake
    sides, end = steps(images), time.perf_counter() + LIMIT
    turns = {name: [] for name in sides}
    with awake():
        while time.perf_counter() < end and any(sum(f < FOREIGN for f, _ in found) < TURNS for found in turns.values()):
            for name, step in sides.items():
                times, foreign = turn(step)
                turns[name].append((foreign, statistics.median(times)))
    record = {}
    for name, found in turns.items():
        best = sorted(found)[:TURNS]
        record[name] = {"ms": 1e3 * statistics.median(ms for _, ms in best), "foreign CPUs": max(foreign for foreign, _ in best), "turns": len(found)}
    for name in record:
        record[name]["speed of npreparam relative to it"] = record[name]["ms"] / record["npreparam"]["ms"]
    return record


def train(model, images, epochs, batch, rate, optimizer="adam"):
    """The history of a training, and its seconds."""
    session = Session(model, images.train, images.test, rate=rate, batch=batch, seed=SEED, about={}, optimizer=optimizer)
    begin = time.perf_counter()
    session.run(epochs, lambda _: True, lambda s: print(s.history[-1], flush=True) if s.epoch % 10 == 0 else None)
    return session.history, time.perf_counter() - begin


def mnist(images):
    """The usual small VAE: test loss per image 105.6 +- 0.6 after ten epochs."""
    model = VAE(images.train.shape[1:], HIDDEN, LATENT, rng=np.random.default_rng(SEED))
    history, seconds = train(model, images, 10, BATCH, RATE)
    return {"test loss per image": history[-1]["test loss"], "history": history, "seconds": seconds, "seed": SEED}


class KingmaWelling(VAE):
    """Section 5 and appendix C: tanh, weights that begin with variance 0.01, and their prior N(0, 1), an image's share of which is trained on."""

    def __init__(self, image, hidden, latent, images):
        rng, self.count = np.random.default_rng(SEED), images
        super().__init__(image, hidden, latent, rng=rng, likelihood="gaussian")
        self.update({name: 0.1 * rng.standard_normal(p.shape, np.float32) for name, p in self.parameters().items()})

    def features(self, x, training=False):
        return ops.tanh(self.encoder(ops.reshape(x, (x.shape[0], self.pixels)), training))

    def decoded(self, z, training=False):
        return ops.tanh(self.decoder(z, training))

    def objective(self, x, eps, training=False):
        squares = sum(ops.sum(ops.square(p)) for p in self.parameters().values())
        return ops.sub(self.elbo(x, eps, training), ops.mul(squares, 0.5 / self.count))


def frey(images):
    """Kingma and Welling's Frey faces with Adagrad and one sample: the bounds for 2, 5, 10 and 20 latent dimensions.

    As there, the step size is the best of three on the training set within the first epochs.
    """
    def run(latent, rate, epochs):
        model = KingmaWelling(images.train.shape[1:], FREY["hidden"], latent, len(images.train))
        _, seconds = train(model, images, epochs, FREY["batch"], rate, "adagrad")
        bounds = {name: float(-evaluate(model, part, np.random.default_rng(SEED)).loss.mean())
                  for name, part in (("train bound", images.train), ("test bound", images.test))}
        return bounds | {"seconds": seconds, "rate": rate}

    rates = {latent: max(FREY["rates"], key=lambda rate: run(latent, rate, FREY["trial epochs"])["train bound"]) for latent in (2, 5, 10, 20)}
    found = {latent: run(latent, rate, FREY["epochs"]) for latent, rate in rates.items()}
    return found | {"schedule": FREY, "samples trained on": FREY["epochs"] * (len(images.train) // FREY["batch"]) * FREY["batch"]}


class TwoLayers(IWAE):
    """784-200-200-50: two hidden layers on each side, as in Burda et al., with ReLU for tanh."""

    def _encoder(self, hidden, rng, dtype):
        self.first = Linear(self.pixels, hidden, rng=rng, dtype=dtype)
        self.encoder = Linear(hidden, hidden, rng=rng, dtype=dtype)
        return hidden

    def _decoder(self, hidden, rng, dtype):
        self.first_up = Linear(self.latent, hidden, rng=rng, dtype=dtype)
        self.decoder = Linear(hidden, hidden, rng=rng, dtype=dtype)
        return hidden

    def features(self, x, training=False):
        return ops.relu(self.encoder(ops.relu(self.first(ops.reshape(x, (x.shape[0], self.pixels)), training)), training))

    def decoded(self, z, training=False):
        return ops.relu(self.decoder(ops.relu(self.first_up(z, training)), training))


def iwae(images):
    """Burda et al.'s network on binarized MNIST, a few epochs instead of 3280: the NLL of k = 5 below that of k = 1, beyond the interval."""
    rng, found, per_image = np.random.default_rng([SEED, 5]), {}, {}
    binary = images._replace(train=(rng.random(images.train.shape) < images.train).astype(np.float32),
                             test=(rng.random(images.test.shape) < images.test).astype(np.float32))
    chosen = binary._replace(test=binary.test[rng.permutation(len(binary.test))[: IWAE_RUN["NLL images"]]])  # of all test images, at random
    for k in (1, 5):
        model = TwoLayers(images.train.shape[1:], IWAE_RUN["hidden"], IWAE_RUN["latent"], samples=k, rng=np.random.default_rng(SEED))
        _, seconds = train(model, chosen, IWAE_RUN["epochs"], IWAE_RUN["batch"], IWAE_RUN["rate"])
        estimate = log_likelihood(model, chosen.test, np.random.default_rng([SEED, 6]), IWAE_RUN["samples"])
        per_image[k] = estimate.per_image
        found[f"k = {k}"] = {"NLL": -estimate.mean, "standard error": estimate.standard_error, "training seconds": seconds,
                             "negative ELBO": float(evaluate(model, chosen.test, np.random.default_rng(7)).loss.mean())}
    gain = per_image[5] - per_image[1]
    error = gain.std(ddof=1) / len(gain) ** 0.5
    found["gain of k = 5, nats per image"] = {"mean": gain.mean(), "standard error of paired differences": error,
                                              "95 % interval": [gain.mean() - 1.96 * error, gain.mean() + 1.96 * error]}
    return found | {"schedule": IWAE_RUN}


RUNS = {"speed": (lambda images: speed(images.train), "mnist"), "epochs": (lambda images: epochs(images.train), "mnist"),
        "mnist": (mnist, "mnist"), "frey": (frey, "frey"), "iwae": (iwae, "mnist")}


def main():
    measure.clean_environment()
    if len(sys.argv) < 3 or sys.argv[1] not in RUNS:
        sys.exit(__doc__)
    run, data = RUNS[sys.argv[1]]
    os.environ["NPREPARAM_DATA"] = sys.argv[2]
    record = run(load_images(data))
    print(record)
    if len(sys.argv) > 3:
        measure.save(record, sys.argv[3])


if __name__ == "__main__":
    main()
