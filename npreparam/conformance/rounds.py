"""What there is to judge: rounds of keys, the order in which they are judged, and what no case has come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from npreparam.conformance.case import Key
from npreparam.conformance.cases import keys, pinned_count
from npreparam.conformance.cases.tables import TABLES
from npreparam.conformance.signatures import OPS

FIRST = {"exact": 6, "adjoint": 4, "relation": 12, "random": 8}  # cases of each function and dtype; and all rows of the tables
MORE = {"pinned": 0, "exact": 6, "geometry": 8, "adjoint": 2, "relation": 4, "random": 16, "search": 1}


def round_keys(number: int, ops: Iterable[str] = OPS, dtypes: Iterable[str] = ("float32", "float64"), seed: int = 0) -> list[Key]:
    """The keys of a round.

    >>> len(round_keys(0, ["tanh"], ["float32"])), str(round_keys(1, ["tanh"], ["float32"])[0])
    (37, 'tanh/exact/float32/0/6')
    """
    found: list[Key] = []
    for op in ops:
        first = {**FIRST, "pinned": pinned_count(op), "geometry": len(TABLES[op]), "search": 0}
        for dtype in dtypes:
            for phase, count in MORE.items():
                begin = first[phase] + (number - 1) * count if number else 0
                found += keys(op, phase, dtype, seed, range(begin, begin + (count if number else first[phase])))
    return found


def fair(wanted: Iterable[Key]) -> list[Key]:
    """The keys in an order of which every beginning has its share of each function, dtype and phase, after one case of each function and dtype.

    That one is the first of random numbers, which shows more than any other.

    >>> keys = [Key("tanh", phase, "float32", 0, i) for phase, count in (("exact", 4), ("random", 2)) for i in range(count)]
    >>> [key.phase for key in fair(keys)]
    ['random', 'exact', 'exact', 'exact', 'exact', 'random']
    """
    groups: dict[tuple[str, str, str], list[Key]] = {}
    for key in wanted:
        groups.setdefault(key[:3], []).append(key)
    place = {key: (i + (rank + 0.5) / len(groups)) / len(group) for rank, group in enumerate(groups.values()) for i, key in enumerate(group)}
    shown = {(key.op, key.dtype): key for key in reversed(place) if key.phase == "random"}
    return sorted(place, key=lambda key: (shown.get((key.op, key.dtype)) != key, place[key]))


def unjudged(verdicts: Iterable[Key], ops: Iterable[str], dtypes: Sequence[str]) -> list[str]:
    """The functions without any verdict, and those without one in some dtype, with that dtype.

    >>> unjudged([Key("tanh", "exact", "float32", 0, 0)], ["tanh", "silu"], ["float32", "float64"])
    ['tanh in float64', 'silu']
    """
    seen = {(key.op, key.dtype) for key in verdicts}
    found = []
    for op in ops:
        missing = [dtype for dtype in dtypes if (op, dtype) not in seen]
        found += [op] if len(missing) == len(dtypes) else [f"{op} in {dtype}" for dtype in missing]
    return found
