"""Sessions: stopped after any step and restored, the run is the same bit for bit; states of other runs are refused and change nothing."""

import json

import numpy as np
import pytest

from npreparam import ArgumentError, StateError
from npreparam.models import IWAE, VAE, ConvVAE, Session
from tests.tolerances import assert_same_bits

EPOCHS = 3


def images(seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((20, 1, 4, 4)).astype(np.float32), rng.random((7, 1, 4, 4)).astype(np.float32)


def session(kind=VAE, seed=5, data=0, rate=1e-2, optimizer="adam", **about):
    rng = np.random.default_rng(seed)
    model = ConvVAE((1, 4, 4), 2, (3,), rng=rng) if kind is ConvVAE else kind((1, 4, 4), 8, 2, rng=rng)
    return Session(model, *images(data), rate=rate, batch=6, seed=seed, about={"model": kind.__name__, **about},
                   optimizer=optimizer)


def run(s, steps=None):
    s.run(EPOCHS, lambda s: steps is None or s.optimizer.steps < steps, lambda s: None)
    return s


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert_same_bits(a[name], b[name])


@pytest.mark.parametrize(("kind", "optimizer"), [(VAE, "adam"), (IWAE, "adam"), (ConvVAE, "adam"), (VAE, "adagrad")])
def test_resumed_runs_have_the_same_bits(kind, optimizer):
    whole = run(session(kind, optimizer=optimizer)).state()
    for steps in range(10):
        first = session(kind, optimizer=optimizer)
        if steps:
            run(first, steps)
        second = session(kind, optimizer=optimizer)
        second.restore(first.state())
        assert_same_state(second.state(), first.state())
        assert_same_state(run(second).state(), whole)


def test_a_state_does_not_change_when_its_run_goes_on():
    s = run(session(), 2)
    state = s.state()
    kept = {name: value.copy() for name, value in state.items()}
    run(s)
    assert_same_state(state, kept)


def test_an_unrestored_run_differs():
    """Planted: the generator left as it was."""
    first = run(session(), 2)
    second = session()
    before = second.rng.bit_generator.state
    second.restore(first.state())
    second.rng.bit_generator.state = before
    assert run(second).history != run(session()).history


@pytest.mark.parametrize(("other", "message"), [
    ({"kind": IWAE}, "model is 'IWAE' there and 'VAE' here"), ({"seed": 6}, "seed is 6 there and 5 here"), ({"rate": 1e-3}, "rate is 0.001 there"),
    ({"optimizer": "adagrad"}, "optimizer is 'adagrad' there and 'adam' here"),
    ({"data": 1}, "images is '20x1x4x4 "), ({"latent": 3}, "latent is 3 there and None here"),
])
def test_a_state_of_another_run_is_refused_and_nothing_changes(other, message):
    theirs, mine = run(session(**other), 2).state(), run(session(), 1)
    before = mine.state()
    with pytest.raises(StateError, match=message):
        mine.restore(theirs)
    assert_same_state(mine.state(), before)


@pytest.mark.parametrize("state", [{}, {"told": np.array("{}")}, {"told": np.array("nonsense")}, {"told": np.array('{"format": "other"}')}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(StateError, match="it holds no training run"):
        session().restore(state)


def retold(**changes):
    """A change of what a state tells; None leaves the entry out."""
    def change(state):
        told = {**json.loads(str(state["told"])), **changes}
        return {"told": np.array(json.dumps({name: value for name, value in told.items() if value is not None}))}

    return change


NAME = "moment 1/to_mu.weight"
DAMAGES = {
    "no epoch": retold(epoch=None), "no about": retold(about=None), "no history": retold(history=None), "no generator": retold(rng=None),
    "a generator of nonsense": retold(rng={"bit_generator": "PCG64"}), "another generator": retold(rng={"bit_generator": "nonsense"}),
    "text for an epoch": retold(epoch="1"), "a truth for an epoch": retold(epoch=True), "another epoch": retold(epoch=2),
    "fewer steps": retold(**{"steps": 1}), "a history too long": retold(history=[{}, {}, {}]),
    "no moment": lambda state: {NAME: None}, "no pair of moments": lambda state: {NAME: None, NAME.replace("1", "0"): None},
    "a moment of another shape": lambda state: {NAME: state[NAME][:1]}, "a moment in float64": lambda state: {NAME: state[NAME].astype(np.float64)},
    "a moment of nobody": lambda state: {"moment 0/nobody": np.zeros(1, np.float32)},
    "a moment of a parameter that is missing": lambda state: {"model/to_mu.weight": None},
    "an order of floats": lambda state: {"order": state["order"].astype(np.float64)},
    "an order beyond the images": lambda state: {"order": state["order"] + 1}, "one image twice": lambda state: {"order": 0 * state["order"]},
    "no order": lambda state: {"order": state["order"][:0]}, "a matrix of losses": lambda state: {"losses": state["losses"][None]},
    "too many losses": lambda state: {"losses": np.zeros(9)}, "a loss that is none": lambda state: {"losses": state["losses"] * np.nan},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused_and_nothing_changes(damage):
    state, mine = run(session(), 5).state(), run(session(), 1)
    changed = {name: value for name, value in {**state, **DAMAGES[damage](state)}.items() if value is not None}
    before = mine.state()
    with pytest.raises(StateError):
        mine.restore(changed)
    assert_same_state(mine.state(), before)
    mine.restore(state)  # the same without the damage is taken
    assert_same_state(mine.state(), state)


def test_a_restored_run_does_not_share_its_arrays():
    state = run(session(), 5).state()
    kept = {name: value.copy() for name, value in state.items()}
    mine = session()
    mine.restore(state)
    run(mine)
    mine.order[:] = 0
    assert_same_state(state, kept)


def test_a_batch_beyond_the_images_is_refused():
    with pytest.raises(ArgumentError, match=r"`batch` \(=21\) must not be larger than the number of images \(=20\)"):
        Session(VAE((1, 4, 4), 8, 2, rng=np.random.default_rng(0)), *images(), rate=0.1, batch=21, seed=0, about={})


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ArgumentError, match=r"`optimizer` \(='lion'\) must be one of adam, adagrad"):
        session(optimizer="lion")


def test_a_loss_that_is_not_finite_stops_the_run():
    s = session()
    s.model.update({"to_logits.bias": np.full(16, np.nan, np.float32)})
    with pytest.raises(ArgumentError, match="the loss is nan in epoch 1, step 1"):
        run(s)
