"""What is put on trial: any object that offers some of the functions, and what it declares about itself."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from npreparam._errors import ArgumentError
from npreparam.certified.bounds import Profile, profile_named
from npreparam.certified.bounds.profile import OF_DTYPE
from npreparam.conformance.signatures import OPS, bound_arguments, outputs_of

ADAPTERS = "npreparam.conformance.adapters"
CONVENTIONS = {"max_pool_nan": ("propagate", "drop", "drop_to_lowest"), "infinity_on_padding": ("skip", "multiply", "either")}
EVERY = "*"  # in `unsupported`: for every function, or nothing of a function


@dataclass(frozen=True, slots=True)
class Declaration:
    """What an implementation says of itself; the defaults suit one that follows the signatures in float32 and float64.

    * `dtypes`: float16, bfloat16, float32, float64, as far as the implementation has them.
    * `unsupported`: for each function, or "*" for all, the features that it does not have (`Case.features` says what there is: names of
      keywords, "padding:SAME_LOWER", "padding:asymmetric", "dtype:float64", "empty batch", "special values", ...); "*" for the whole function.
    * `momentum`: the weight of the "new" statistic or of the "old" one; `running_variance`: "unbiased" or "biased" estimate.
    * `variance`: how batch statistics are computed, "two_pass" or "one_pass" (E[x^2] - E[x]^2), which is far less accurate.
    * `conventions`: what a standard leaves open, for each name one of `CONVENTIONS`, of which the first is the usual one. "max_pool_nan":
      NaN wins, or is passed over by a maximum begun at minus infinity, or at the lowest finite number. "infinity_on_padding": an infinite or
      NaN weight (or cotangent) over zero padding counts nothing, or is multiplied by zero, which is NaN, or now the one, now the other, which
      leaves nothing to judge.
    * `profiles`: the arithmetic for each dtype, by name or as a `Profile`; otherwise the usual one.
    * `function_ulps`: the accuracy of exp, log and tanh, in ulps.
    * `layouts`: memory layouts, of those in `layouts.LAYOUTS`, that the arrays may come in.
    * `out`: functions that take a keyword `out`, an array to write into.
    * `isolate`: run in a process of its own, if nothing else is asked for. `seconds`: time limit of one call.

    Raises ArgumentError for a convention, dtype, function or profile that there is not.

    >>> Declaration("mine", dtypes=("float32",), unsupported={"conv2d": ("groups",)}).momentum
    'new'
    """

    name: str
    version: str = ""
    dtypes: tuple[str, ...] = ("float32", "float64")
    unsupported: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    momentum: str = "new"
    running_variance: str = "unbiased"
    variance: str = "two_pass"
    conventions: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, str | Profile] = field(default_factory=dict)
    function_ulps: float = 4.0
    layouts: tuple[str, ...] = ("contiguous", "channels_last", "strided", "reversed", "transposed", "unaligned", "read_only")
    out: tuple[str, ...] = ()
    isolate: bool = False
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, choices in (("momentum", ("new", "old")), ("running_variance", ("unbiased", "biased")), ("variance", ("one_pass", "two_pass"))):
            if getattr(self, name) not in choices:
                raise ArgumentError(f"`{name}` (={getattr(self, name)!r}) must be one of {', '.join(map(repr, choices))}")
        for name, choice in self.conventions.items():
            if choice not in CONVENTIONS.get(name, ()):
                raise ArgumentError(f"`conventions` (={name!r}: {choice!r}) must be of "
                                    + ", ".join(f"{known!r}: {' | '.join(choices)}" for known, choices in CONVENTIONS.items()))
        for dtype in (*self.dtypes, *self.profiles):
            if dtype not in ("float16", "bfloat16", "float32", "float64"):
                raise ArgumentError(f"`dtypes` and `profiles` name {dtype!r}, but the judged formats are float16, bfloat16, float32 and float64")
        for op in self.unsupported:
            if op not in (EVERY, *OPS):
                raise ArgumentError(f"`unsupported` names {op!r}, but the functions are {', '.join(OPS)}, and '*' for all")
        for profile in self.profiles.values():
            if not isinstance(profile, Profile):
                profile_named(profile)

    def profile(self, dtype: str) -> Profile:
        """The arithmetic declared for a dtype.

        >>> Declaration("mine", profiles={"float32": "tf32"}).profile("float32").input_rounding
        'tf32'
        """
        profile = self.profiles.get(dtype)
        if isinstance(profile, Profile):
            return profile
        return OF_DTYPE.get(dtype, profile_named("float32")) if profile is None else profile_named(profile)

    def convention(self, name: str) -> str:
        """What is declared under a name of `CONVENTIONS`, or the usual.

        >>> Declaration("mine").convention("max_pool_nan")
        'propagate'
        """
        return self.conventions.get(name, CONVENTIONS[name][0])

    def lacks(self, op: str, features: frozenset[str]) -> str:
        """The first of a case's features that is declared unsupported, or "".

        >>> Declaration("mine", unsupported={"conv2d": ("groups",)}).lacks("conv2d", frozenset({"groups", "stride"}))
        'groups'
        """
        missing = {*self.unsupported.get(op, ()), *self.unsupported.get(EVERY, ())}
        return EVERY if EVERY in missing else min(missing & features, default="")


@dataclass(frozen=True, slots=True)
class Target:
    """An implementation on trial: its functions, what it declares, and, where it has one, the text it was named by.

    >>> import types, numpy as np
    >>> target = Target.of(types.SimpleNamespace(tanh=np.tanh))
    >>> target.offers(), target.call("tanh", {"x": np.zeros(1)})
    (('tanh',), (array([0.]),))
    """

    functions: Any
    declaration: Declaration
    spec: str = ""

    @classmethod
    def of(cls, target: Any) -> Target:
        """From an object, a module, or text: the name of a built-in adapter, "module", "module:attribute" or "file.py:attribute".

        Raises ArgumentError (nothing of that name, or none of the functions in it).
        """
        if isinstance(target, Target):
            return target
        functions = resolve(target) if isinstance(target, str) else target
        found = cls(functions, declaration_of(functions, target), target if isinstance(target, str) else "")
        if not found.offers():
            raise ArgumentError(f"`target` (={target!r}) offers none of the functions {', '.join(OPS)}")
        return found

    def offers(self) -> tuple[str, ...]:
        """Names of the functions that are there."""
        return tuple(op for op in OPS if callable(getattr(self.functions, op, None)))

    def call(self, op: str, arguments: Mapping[str, Any], out: Any = None) -> tuple[Any, ...]:
        """The function's results, always as a tuple; what they are is for the judge to see.

        `out` is an array to write into, passed on where given. Whatever the function raises is raised.
        """
        positional, keywords = bound_arguments(op, by_convention(self.declaration, op, arguments))
        result = getattr(self.functions, op)(*positional, **keywords, **({} if out is None else {"out": out}))
        return tuple(result) if len(outputs_of(op, arguments)) > 1 and isinstance(result, tuple | list) else (result,)

    def set_threads(self, count: int) -> bool:
        """Let the implementation use so many threads, if it offers `set_threads`."""
        setter = getattr(self.functions, "set_threads", None)
        if setter is None:
            return False
        setter(count)
        return True


def by_convention(declaration: Declaration, op: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments as an implementation with these conventions means them."""
    if op == "batch_norm" and declaration.momentum == "old":
        return {**arguments, "momentum": 1.0 - arguments.get("momentum", 0.1)}
    return arguments


def declaration_of(functions: Any, target: Any) -> Declaration:
    """What an object declares by `declaration` or `declare()`, or the usual conventions under its own name."""
    declared = getattr(functions, "declaration", None)
    if declared is None and callable(getattr(functions, "declare", None)):
        declared = functions.declare()
    if declared is not None and not isinstance(declared, Declaration):
        raise ArgumentError(f"`declaration` (a {type(declared).__name__}) of {target!r} must be an npreparam.conformance.Declaration")
    name = target if isinstance(target, str) else getattr(functions, "__name__", type(functions).__name__)
    return Declaration(name, str(getattr(functions, "__version__", ""))) if declared is None else declared


def is_adapter(spec: str) -> bool:
    """Whether text names one of the built-in adapters, or one of its variants.

    >>> is_adapter("numpy")
    False
    """
    name = spec.partition(":")[0]
    return name.isidentifier() and importlib.util.find_spec(f"{ADAPTERS}.{name}") is not None


def resolve(spec: str) -> Any:
    """The object that text names. Raises ArgumentError, or ImportError where the framework behind it is missing."""
    place, _, attribute = spec.partition(":")
    name = f"{ADAPTERS}.{place}" if is_adapter(spec) else place
    try:
        found: Any = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # something that the module itself needs
        raise ArgumentError(f"`target` (={spec!r}) names no module {place}; give a built-in adapter, a module, module:attribute "
                            "or file.py:attribute") from None
    except ImportError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ValueError | TypeError) and (not place or place.startswith(".")):
            raise ArgumentError(f"`target` (={spec!r}) must be a built-in adapter, a module, module:attribute or file.py:attribute") from None
        reason = str(error).strip().partition("\n")[0]
        raise ArgumentError(f"`target` (={spec!r}) cannot be imported: {type(error).__name__}: {reason}") from None
    for part in filter(None, attribute.split(".")):
        if not hasattr(found, part):
            raise ArgumentError(f"`target` (={spec!r}): there is no attribute {part} in {place}")
        found = getattr(found, part)
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ArgumentError(f"`target` (={str(path)!r}) is no file")
    name = f"npreparam_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends in .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module
