"""Our docstrings are plain text with `code` and indented formulas; here they become reStructuredText.

* an indented paragraph is a formula or loop nest: a literal block; so is one that begins like an equation and does not end like a sentence
* a paragraph that begins with "* " is a list; one that begins with ">>> " a doctest
* in every other paragraph nothing but backticks has a meaning, so stars, bars and underscores are escaped
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
EQUATION = re.compile(r"[|<]?[\w^'~]+(\[[^\]]*\])?[|>]? (=|\+=|<=) ")
CODE = re.compile(r"(`{1,2}[^`]+`{1,2})")


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Runs of lines between blank ones."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def escaped(line: str) -> str:
    """The line with every character of reStructuredText's own outside of `code` made harmless."""
    out = []
    for i, part in enumerate(CODE.split(line)):
        if i % 2:
            out.append(f"``{part.strip('`')}``")
        else:  # a literal must not run into a word
            out.append(("\\ " if i and part[:1].isalnum() else "") + re.sub(r"([*|_\\`])", r"\\\1", part))
    return "".join(out)


def is_equation(paragraph: list[str]) -> bool:
    """Whether a paragraph, not indented, is a formula."""
    text = " ".join(paragraph)
    return bool(EQUATION.match(text)) and not text.endswith((".", ":", ";", ",")) and "`" not in text


def rewritten(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText."""
    out: list[str] = []
    for paragraph in paragraphs(lines):
        if paragraph[0].startswith(">>>"):
            out += paragraph
        elif paragraph[0].startswith("* "):
            out += [f"* {escaped(line[2:])}" if line.startswith("* ") else f"  {escaped(line.strip())}" for line in paragraph]
        elif is_equation(paragraph):
            out += [".. code-block:: text", "", *(f"    {line}" for line in paragraph)]
        else:
            begin = next((i for i, line in enumerate(paragraph) if line[0] == " "), len(paragraph))
            end = next((i for i, line in enumerate(paragraph) if i > begin and line[0] != " "), len(paragraph))
            out += [escaped(line) for line in paragraph[:begin]]
            if paragraph[begin:end]:
                out += ["", ".. code-block:: text", "", *(f"    {line}" for line in paragraph[begin:end]), ""]
            out += [escaped(line.strip()) for line in paragraph[end:]]
        out.append("")
    return out


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """autodoc-process-docstring."""
    lines[:] = rewritten(lines)


def alias_names(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None,
                returns: str | None) -> tuple[str | None, str | None]:
    """autodoc-process-signature: a type alias within a union is shown by its name, as it is elsewhere."""
    return signature and ALIAS.sub(r"\1", signature), returns and ALIAS.sub(r"\1", returns)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect both to autodoc."""
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", alias_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
