"""The extension that turns our plain docstrings into reStructuredText."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the documentation needs the extra `docs`")
SOURCE = Path(__file__).parents[2] / "docs" / "_ext" / "docstrings.py"


@pytest.fixture(scope="module")
def rewritten():
    spec = importlib.util.spec_from_file_location("npreparam_docs_docstrings", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.rewritten


def test_code_and_stars(rewritten):
    assert rewritten(["`a*b` is a*b with |x|_2"]) == [r"``a*b`` is a\*b with \|x\|\_2", ""]


def test_an_indented_formula_is_literal(rewritten):
    assert rewritten(["The sum:", "", "    y = a*x", "", "with a."]) == ["The sum:", "", "", ".. code-block:: text", "", "        y = a*x", "", "",
                                                                         "with a.", ""]


def test_doctests_stay(rewritten):
    assert rewritten([">>> f(2) * 3", "6"]) == [">>> f(2) * 3", "6", ""]


def test_lists_stay_lists(rewritten):
    assert rewritten(["* one `x`", "  goes on", "* two*"]) == ["* one ``x``", "  goes on", r"* two\*", ""]


def test_code_does_not_run_into_a_word(rewritten):
    assert rewritten(["`Ball`s and ``x``."]) == [r"``Ball``\ s and ``x``.", ""]


def test_an_equation_that_is_not_indented_is_literal_too(rewritten):
    assert rewritten(["y[n, o] = b[o] + sum over i of x[n, i] * w[o, i]"]) == [".. code-block:: text", "",
                                                                               "    y[n, o] = b[o] + sum over i of x[n, i] * w[o, i]", ""]


@pytest.mark.parametrize("sentence", ["k = 1 is the ELBO.", "x is NCHW, y = 2*x.", "w = s, see `linear`"])
def test_a_sentence_with_an_equation_is_prose(rewritten, sentence):
    assert "code-block" not in rewritten([sentence])[0]
