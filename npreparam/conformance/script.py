"""A failing case as a script that needs only NumPy and the target: arguments, expected values and bounds are inside."""

from __future__ import annotations

import base64
import inspect
import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from npreparam.certified.bounds import Profile
from npreparam.conformance.case import Case, Verdict
from npreparam.conformance.grade import allows_no_error
from npreparam.conformance.layouts import LAYOUTS
from npreparam.conformance.signatures import bound_arguments
from npreparam.conformance.target import ADAPTERS, Declaration, by_convention, is_adapter
from npreparam.conformance.truth import truths

HEAD = '''"""{title}

{why}
Run it: exit status 0 if the target is right, 1 if it is not. `expected` is correctly rounded; `bound` is how far an honest implementation
of the declared arithmetic may be from the exact value.
"""

import base64
import importlib
import importlib.util
import io
import sys

import numpy as np


def array(text, dtype):
    found = np.load(io.BytesIO(base64.b64decode(text)))
    if dtype == "bfloat16":
        import ml_dtypes
        return found.view(ml_dtypes.bfloat16)
    return found


def target(place, attribute):
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location("target", place)
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    else:
        sys.path.insert(0, "")
        found = importlib.import_module(place)
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part)
    return found


'''
TAIL = '''
results = getattr(target({place!r}, {attribute!r}), {op!r})(*positional, **keywords)
results = list(results) if isinstance(results, (tuple, list)) else [results]
wrong = 0
for name, actual, truth, value, limit in zip(names, results, expected, exact, bound, strict=True):
    actual = np.asarray(actual)
    if actual.shape != truth.shape or actual.dtype != truth.dtype:
        print(name, "has shape", actual.shape, "and dtype", actual.dtype, "instead of", truth.shape, truth.dtype)
        wrong += 1
        continue
    with np.errstate(all="ignore"):
        a, t = actual.astype(np.float64), truth.astype(np.float64)
        good = (a == t) | (np.isnan(a) & np.isnan(t)) | (np.abs(a - value) <= limit) | np.isinf(limit)
    for index in np.argwhere(~good).tolist():
        at = tuple(index)
        print(f"{{name}}{{index}} is {{float(actual[at])!r}} instead of {{float(truth[at])!r}}; bound {{float(limit[at]):.3g}}")
    wrong += int((~good).sum())
sys.exit(1 if wrong else 0)
'''


def _array_text(value: Any) -> str:
    value = np.asarray(value)
    name, buffer = value.dtype.name, io.BytesIO()
    np.save(buffer, np.ascontiguousarray(value).view(np.uint16).reshape(value.shape) if name == "bfloat16" else value)
    text = "\n".join(f'    "{line}"' for line in textwrap.wrap(base64.b64encode(buffer.getvalue()).decode(), 120))
    return f"array(\n{text}, {name!r})"


def _text(value: Any, layout: str) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_text(part, layout) for part in value)},)"
    if not isinstance(value, np.ndarray):
        return repr(value)
    return f"laid_out({_array_text(value)})" if layout != "contiguous" and value.ndim else _array_text(value)


def _layout(name: str) -> str:
    """Source of the function that lays an argument out."""
    if name == "contiguous":
        return ""
    function = LAYOUTS[name]
    if function is np.asfortranarray:
        return "laid_out = np.asfortranarray\n\n"
    source = inspect.getsource(function).replace(": Array) -> Array", ")").replace("_filler(x)", '(0 if x.dtype.kind in "iub" else np.nan)')
    return f"{source}\n\nlaid_out = {function.__name__}\n\n"


def standalone(case: Case, verdict: Verdict, spec: str, declaration: Declaration, profile: Profile | None = None) -> str:
    """The text of the script for a case; `spec` names the target, and `profile` replaces the arithmetic that it declares.

    Other questions than one plain call (`Case.relation`) are told, not repeated.
    """
    place, _, attribute = spec.partition(":")
    place = str(Path(place).resolve()) if place.endswith(".py") else place  # so that it may be run from anywhere
    profile = profile or declaration.profile(case.dtype)
    found = truths(case, declaration, profile)
    positional, keywords = bound_arguments(case.op, by_convention(declaration, case.op, case.arguments))
    shown = ", ".join(f"{name}={value!r}" for name, value in case.arguments.items() if not isinstance(value, np.ndarray | tuple) or name in
                      ("padding", "stride", "kernel", "dilation"))
    why = verdict.explanation.replace("\\", "/").replace('"""', "'''")
    if case.relation:
        why += f"\nSeen by more than one call ({case.relation}); this script makes one."
    parts = [HEAD.format(title=f"{case.op}({shown}): {verdict.level}", why=why), _layout(case.layout)]
    parts.append("positional = [" + ", ".join(_text(value, case.layout) for value in positional) + "]\n")
    parts.append("keywords = {" + ", ".join(f"{name!r}: {_text(value, case.layout)}" for name, value in keywords.items()) + "}\n")
    exact = allows_no_error(case, profile)
    for name, values in (("names", [repr(truth.name) for truth in found]), ("expected", [_array_text(truth.rounded) for truth in found]),
                         ("exact", [_array_text(truth.value) for truth in found]),
                         ("bound", [_array_text(np.zeros_like(truth.bound) if exact else truth.bound) for truth in found])):
        parts.append(f"{name} = [{', '.join(values)}]\n")
    parts.append(TAIL.format(place=f"{ADAPTERS}.{place}" if is_adapter(spec) else place, attribute=attribute, op=case.op))
    return "".join(parts)
