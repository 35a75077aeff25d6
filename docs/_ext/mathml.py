"""Mathematics as MathML, written at build time: browsers draw it themselves, so a page needs no script and no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

NAMED = re.compile(r"(<mi>(?:log|ln|exp)</mi>)(?=<m(?:i|n|sub|sup)>)")


def mathml(source: str, display: str) -> str:
    """LaTeX as MathML, with two things set right: `\\sim` is an operator, and the name of a function keeps apart from its argument."""
    return NAMED.sub(r'\1<mspace width="0.167em" />', convert(source, display=display).replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"))


def inline(translator: Any, node: nodes.math) -> None:
    """$...$ inside a sentence."""
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """$$...$$ on lines of its own; a wide formula scrolls inside its own box."""
    translator.body.append(f'<div class="math-block" tabindex="0">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register as the renderer of mathematics."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
