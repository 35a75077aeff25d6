"""What a public name owes its reader: a docstring of its own, with an example that runs."""

import importlib
import inspect
import pkgutil

import pytest

import npreparam
from npreparam import ops

# commands; targets, whose frameworks may be missing; files that pytest loads
ELSEWHERE = ("npreparam.__main__", "npreparam.cli", "npreparam.conformance.adapters", "npreparam.conformance.tests")


def public_names():
    """(name, object) for each function and class in the `__all__` of a public module."""
    for found in [npreparam.__name__, *(module.name for module in pkgutil.walk_packages(npreparam.__path__, "npreparam."))]:
        if "._" in found or found.startswith(ELSEWHERE):
            continue
        module = importlib.import_module(found)
        for name in getattr(module, "__all__", ()):
            if callable(getattr(module, name)):
                yield f"{found}.{name}", getattr(module, name)


def silent(names):
    """Names whose own docstring, not an inherited one, has no example."""
    return [name for name, thing in names if ">>>" not in ((vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or "")]


def test_every_public_name_has_an_example():
    pytest.importorskip("onnx")
    pytest.importorskip("matplotlib")
    names = list(public_names())
    assert {"npreparam.ops.conv2d", "npreparam.tape.grad", "npreparam.prob.Normal", "npreparam.conformance.Verdict"} <= dict(names).keys()
    assert silent(names) == []


def test_a_name_without_example_is_seen():
    class Inherits(npreparam.Window):
        """It says nothing of its own."""

    assert silent([("Inherits", Inherits), ("conv2d", ops.conv2d), ("len", len)]) == ["Inherits", "len"]
