"""The extension that writes formulas as MathML."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the documentation needs the extra `docs`")
pytest.importorskip("latex2mathml", reason="the documentation needs the extra `docs`")
SOURCE = Path(__file__).parents[2] / "docs" / "_ext" / "mathml.py"


@pytest.fixture(scope="module")
def mathml():
    spec = importlib.util.spec_from_file_location("npreparam_docs_mathml", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.mathml


def test_is_distributed_as_is_an_operator(mathml):
    assert "<mo>&#x0223C;</mo>" in mathml(r"z \sim p", "inline")


@pytest.mark.parametrize(("source", "apart"), [(r"\log p", True), (r"\ln 2", True), (r"\log x_i", True), (r"\log(x)", False), (r"a b", False)])
def test_the_name_of_a_function_keeps_apart_from_its_argument(mathml, source, apart):
    assert ("<mspace" in mathml(source, "inline")) == apart
