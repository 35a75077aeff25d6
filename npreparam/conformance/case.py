"""The records that travel: a case, pure data, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from npreparam.conformance.signatures import PARAMETERS, REQUIRED

PHASES = ("pinned", "exact", "geometry", "adjoint", "relation", "random", "search")
RELATIONS = ("", "adjoint", "repeat", "batch split", "channel permutation", "threads", "prefilled")


class Level(StrEnum):
    """The verdicts, from best to worst; the last four say that there was nothing to compare.

    >>> Level("FAIL") is Level.FAIL, " ".join(Level)
    (True, 'EXACT OK SUSPECT FAIL ABSENT ERROR CRASH TIMEOUT')
    """

    EXACT = "EXACT"  # every element is the correctly rounded one
    OK = "OK"  # every element is within the sound bound
    SUSPECT = "SUSPECT"  # within it, but beyond what honest rounding makes likely, or not the same twice
    FAIL = "FAIL"  # impossible for the declared arithmetic
    ABSENT = "ABSENT"  # the target does not offer this
    ERROR = "ERROR"  # an exception, or no array of the right shape and dtype, or arguments changed
    CRASH = "CRASH"  # the process ended
    TIMEOUT = "TIMEOUT"  # no answer in time


RAISES = "raises "  # how the explanation of an exception begins
CONFORMS = (Level.EXACT, Level.OK, Level.SUSPECT, Level.ABSENT)


class Key(NamedTuple):
    """All that a case is made from: the same key gives the same bits on every machine.

    >>> str(Key("conv2d", "random", "float32", 0, 7))
    'conv2d/random/float32/0/7'
    """

    op: str
    phase: str
    dtype: str
    seed: int
    index: int

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key that `str` made."""
        op, phase, dtype, seed, index = text.split("/")
        return cls(op, phase, dtype, int(seed), int(index))


@dataclass(frozen=True, slots=True)
class Case:
    """One question: a function, its arguments by name (arrays, and attributes as plain values), and how the answer is to be judged.

    * Arguments that are left out have their defaults. Tuples of arrays (`bn3`) are arguments like others.
    * `exact`: zero tolerance, since no partial sum of a direct implementation can need more bits than the accumulator has.
    * `layout`: how the arrays lie in memory when the target sees them. `relation`: what is done beside one plain call (RELATIONS).
    * `refused`: the reference refuses it, and the target may, or answer with numbers, but not with NaN.
    * `name` says in words what the case is about; `key` where it came from, None for one made by hand.

    >>> case = Case("tanh", {"x": np.float32([0, 1])}, name="two numbers")
    >>> case.dtype, case.phase
    ('float32', 'random')
    """

    op: str
    arguments: Mapping[str, Any]
    phase: str = "random"
    name: str = ""
    key: Key | None = None
    exact: bool = False
    layout: str = "contiguous"
    relation: str = ""
    refused: bool = False

    @property
    def dtype(self) -> str:
        """Name of the dtype of the first array."""
        return next(value.dtype.name for value in self.arguments.values() if isinstance(value, np.ndarray))

    def arrays(self) -> dict[str, Any]:
        """The float arrays among the arguments, those in tuples as "bn3[0]".

        >>> sorted(Case("fuse_repvgg", {"bn3": (np.ones(1), np.zeros(1), 1e-5)}).arrays())
        ['bn3[0]', 'bn3[1]']
        """
        found = {}
        for name, value in self.arguments.items():
            for label, part in [(f"{name}[{i}]", v) for i, v in enumerate(value)] if isinstance(value, tuple) else [(name, value)]:
                if isinstance(part, np.ndarray) and part.dtype.kind not in "iub":
                    found[label] = part
        return found

    def features(self) -> frozenset[str]:
        """What a target must be able to do for this case; compared with `Declaration.unsupported`.

        >>> x = np.zeros((0, 1, 4, 4), np.float32)
        >>> sorted(Case("avg_pool2d", {"x": x, "kernel": 2, "padding": ((1, 0), (0, 0))}).features())
        ['dtype:float32', 'empty batch', 'padding', 'padding:asymmetric']
        """
        defaults = PARAMETERS[self.op]
        found = {name for name, value in self.arguments.items()
                 if defaults[name] is not REQUIRED and name not in ("b", "bn_identity") and not _same(value, defaults[name])}
        found |= {name for name in ("b", "bn_identity") if self.arguments.get(name) is not None}
        padding = self.arguments.get("padding")
        if isinstance(padding, str):
            found.add(f"padding:{padding}")
        if isinstance(padding, tuple) and any(isinstance(side, tuple) and side[0] != side[1] for side in padding):
            found.add("padding:asymmetric")
        arrays = self.arrays()
        found.add(f"dtype:{self.dtype}")
        if any(array.ndim and array.shape[0] == 0 for array in arrays.values()):
            found.add("empty batch")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            found.add("special values")
        if self.layout != "contiguous":
            found.add(f"layout:{self.layout}")
        return frozenset(found)


def _same(value: Any, default: Any) -> bool:
    return (value == default and type(value) is type(default)) or value == (default, default)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a case: its level, and the worst element of the worst output.

    * `ulp`: error in units in the last place of the judged dtype; `ratio`: error as a fraction of the sound bound (above 1: FAIL).
    * `output`, `index`, `expected`, `actual`: which element of which result it is, what it should be, correctly rounded, and what it is.
    * `counts`: elements that are EXACT, OK, SUSPECT, FAIL.
    * `profile`: the tightest ready-made profile that would explain a FAIL, or "". `diagnosis`: the known mistakes that match.

    >>> Verdict(Level.OK, "conv2d", "random", "float32", ratio=0.2).conforms
    True
    """

    level: Level
    op: str
    phase: str
    dtype: str
    name: str = ""
    key: Key | None = None
    ulp: float = 0.0
    ratio: float = 0.0
    output: str = ""
    index: tuple[int, ...] = ()
    expected: float | None = None
    actual: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    explanation: str = ""
    profile: str = ""
    diagnosis: tuple[str, ...] = ()

    @property
    def conforms(self) -> bool:
        """Whether this is no evidence against the target."""
        return self.level in CONFORMS

    @property
    def raised(self) -> bool:
        """Whether the target ended without an answer: by an exception, or with its process, or not in time."""
        return self.level in (Level.CRASH, Level.TIMEOUT) or (self.level is Level.ERROR and self.explanation.startswith(RAISES))
