"""What a target declares where a standard leaves it open, and what the reference refuses."""

from types import SimpleNamespace

import numpy as np
import pytest

from npreparam import ArgumentError, ops
from npreparam.conformance import Case, Declaration, Level, judge_case
from npreparam.conformance.mistakes import as_target, mistake_named
from npreparam.conformance.target import CONVENTIONS
from npreparam.conformance.wire import pack_hello, unpack_hello

NAN_POOL = Case("max_pool2d", {"x": np.float32([[[[np.nan, np.nan, 1, np.nan, -np.inf, -np.inf, 2, 3]]]]), "kernel": (1, 2)})
LOWEST = -np.finfo(np.float32).max


@pytest.mark.parametrize(("convention", "answer"), [("propagate", [np.nan, np.nan, -np.inf, 3]), ("drop", [-np.inf, 1, -np.inf, 3]),
                                                    ("drop_to_lowest", [LOWEST, 1, LOWEST, 3])])
def test_a_maximum_passes_nan_on_or_over_as_it_is_declared(convention, answer):
    target = SimpleNamespace(max_pool2d=lambda *a, **k: np.float32(answer).reshape(1, 1, 1, 4))
    levels = {name: judge_case(NAN_POOL, SimpleNamespace(**vars(target), declaration=Declaration("a", conventions={"max_pool_nan": name}))).level
              for name in CONVENTIONS["max_pool_nan"]}
    assert {name for name, level in levels.items() if level is Level.EXACT} == {convention}


@pytest.mark.parametrize("op", ["conv2d", "conv2d_weight_grad"])
def test_an_infinity_over_padding_counts_nothing_or_is_multiplied_as_it_is_declared(op):
    one = np.ones((1, 1, 2, 2), np.float32)
    w = np.ones((1, 1, 3, 3), np.float32)
    factor = w.copy() if op == "conv2d" else one.copy()
    factor[0, 0, 0, 0] = np.inf
    case = Case(op, {"x": one, "w": factor, "padding": 1} if op == "conv2d" else {"gy": factor, "x": one, "weight_shape": w.shape, "padding": 1})

    skipping, levels = getattr(ops, op), {}

    def multiplying(*_, **__):
        return skipping(**{**case.arguments, "x": np.pad(one, ((0, 0), (0, 0), (1, 1), (1, 1))), "padding": 0})

    for choice in CONVENTIONS["infinity_on_padding"]:
        declaration = Declaration("a", conventions={"infinity_on_padding": choice})
        for name, function in (("skip", skipping), ("multiply", multiplying)):
            levels[choice, name] = judge_case(case, SimpleNamespace(**{op: function}, declaration=declaration)).level
    assert levels["skip", "skip"] is levels["multiply", "multiply"] is Level.EXACT
    assert levels["skip", "multiply"] is levels["multiply", "skip"] is Level.FAIL
    assert levels["either", "skip"] is levels["either", "multiply"] is Level.ABSENT


def test_what_the_reference_refuses_may_be_refused_or_answered_but_not_with_nan():
    row = mistake_named("batch_norm", "a single value per channel gives NaN")

    def numbers(*arguments, **options):
        return tuple(np.zeros(1, np.float32) for _ in range(3))

    assert judge_case(row.case, "npreparam").level is Level.EXACT
    assert judge_case(row.case, SimpleNamespace(batch_norm=numbers)).level is Level.OK
    verdict = judge_case(row.case, as_target(row))
    assert verdict.level is Level.FAIL
    assert verdict.diagnosis[0].startswith(row.name)


def test_conventions_travel_and_are_validated():
    declaration = Declaration("a", conventions={"max_pool_nan": "drop"})
    assert unpack_hello(pack_hello(declaration, ("tanh",)))[0] == declaration
    for wrong in ({"max_pool_nan": "ignore"}, {"softmax": "drop"}):
        with pytest.raises(ArgumentError, match="`conventions`"):
            Declaration("a", conventions=wrong)
