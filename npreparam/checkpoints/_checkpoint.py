"""What a file holds: arrays by name, and everything else that is known about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from npreparam.checkpoints._dtypes import Array


class Span(NamedTuple):
    """Where a tensor lies: its storage, the first element, shape and strides in elements. Equal spans are one tensor.

    >>> Span("0", 4, (2, 2), (2, 1)) == Span("0", 4, (2, 2), (2, 1))
    True
    """

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class PassedOver(NamedTuple):
    """Something of the file that is not among the arrays, and why.

    >>> PassedOver("optimizer", "3 tensors beside those of 'model'").name
    'optimizer'
    """

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Checkpoint(Mapping[str, Array]):
    """Named read-only arrays of one file in the file's order; `metadata`, `passed_over` and `spans` tell the rest.

    Arrays that the file stores once share their memory, which is why none is writable.

    >>> import numpy as np
    >>> tied = {"embed.weight": np.ones(3), "head.weight": np.ones(3)}
    >>> Checkpoint(tied, spans=dict.fromkeys(tied, Span("0", 0, (3,), (1,)))).aliases()
    (('embed.weight', 'head.weight'),)
    """

    arrays: dict[str, Array]
    format: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] = ()
    spans: dict[str, Span] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for array in self.arrays.values():
            array.flags.writeable = False

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def aliases(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names of one and the same tensor (a module that is used under several names)."""
        return self._groups({name: span for name, span in self.spans.items() if 0 not in span.shape})

    def shared_storages(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names whose tensors lie in one storage, whether or not they overlap there."""
        return self._groups({name: span.storage for name, span in self.spans.items()})

    @staticmethod
    def _groups(keys: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        groups: dict[Any, list[str]] = {}
        for name, key in keys.items():
            groups.setdefault(key, []).append(name)
        return tuple(tuple(names) for names in groups.values() if len(names) > 1)
