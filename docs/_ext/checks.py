"""What fails a build: a public name without a docstring, or without an entry in the API pages; a figure without alternative text."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import npreparam

logger = logging.getLogger(__name__)
SKIPPED = ("npreparam.__main__", "npreparam.cli.")


def public_modules() -> Iterator[Any]:
    """Every package and module of npreparam with an `__all__`, outside of private ones."""
    for found in pkgutil.walk_packages(npreparam.__path__, "npreparam."):
        if "._" in found.name or ".tests" in found.name or found.name.startswith(SKIPPED):
            continue
        module = importlib.import_module(found.name)
        if hasattr(module, "__all__"):
            yield module


def documented(env: BuildEnvironment) -> set[int]:
    """Identities of all objects that have an entry in the API pages."""
    identities = set()
    for name in env.domaindata["py"]["objects"]:
        module, _, attribute = name.rpartition(".")
        try:
            identities.add(id(getattr(importlib.import_module(module), attribute)))
        except (ImportError, AttributeError, ValueError):
            continue  # a method or an attribute: its class has an entry
    return identities


def consistency(app: Sphinx, env: BuildEnvironment) -> None:
    """env-check-consistency."""
    entries = documented(env)
    for module in public_modules():
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing) or not (inspect.isclass(thing) or callable(thing)):
                continue
            if not (inspect.getdoc(thing) or "").strip():
                logger.warning("%s.%s is public and has no docstring", module.__name__, name)
            if id(thing) not in entries:
                logger.warning("%s.%s is public and stands on no API page", module.__name__, name)


def images(app: Sphinx, tree: nodes.document, name: str) -> None:
    """doctree-resolved: every image says in words what it shows."""
    for image in tree.findall(nodes.image):
        if not image.get("alt"):
            logger.warning("%s: a figure (%s) has no alternative text", name, image.get("uri"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect both checks."""
    app.connect("env-check-consistency", consistency)
    app.connect("doctree-resolved", images)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
