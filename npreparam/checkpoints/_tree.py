"""The tensors of a tree of dicts, lists and modules, by dotted names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npreparam._errors import FormatError
from npreparam.checkpoints._checkpoint import Checkpoint, PassedOver
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints._pickle_globals import Named, NumpyArray, Placeholder
from npreparam.checkpoints._storage import StridedTensor

# Under which key training programs store the weights; the running average first, as it is what they evaluate.
ENTRIES = ("params_ema", "ema", "ema_state_dict", "state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "params", "net",
           "network")
MAX_NODES = 2**20
MAX_DEPTH = 100
Path = tuple[str, ...]
Tensor = StridedTensor | Array
SCALARS = (str, int, float, bool, type(None))


def checkpoint_of(tree: Any, foreign: dict[str, int], format_name: str, entry: str | None) -> Checkpoint:
    """The weights in `tree` (those under `entry`, or where training programs put them) and an account of the rest.

    Raises FormatError: no tensors, no such entry, a name that is used twice, a tensor outside its storage, endless nesting.
    """
    walker = _Walker()
    walker.visit(tree, ("tensor",) if isinstance(tree, (StridedTensor, NumpyArray)) else ())
    if not walker.tensors:
        named = f"; it names {', '.join(name[:60] for name in list(foreign)[:5])}" if foreign else ""
        raise FormatError(f"holds no tensors{named}")
    chosen = _choose(walker.tensors, entry)
    passed = [PassedOver(name, reason) for name, reason in walker.passed_over.items()]
    passed += [PassedOver(name, f"a class or function of the file, mentioned {count} times; neither imported nor called")
               for name, count in foreign.items()]
    passed += _others(walker.tensors, chosen)
    arrays, spans = {}, {}
    for path, tensor in walker.tensors.items():
        if path[: len(chosen)] == chosen:
            name = ".".join(path[len(chosen):])
            if name in arrays:
                raise FormatError(f"two tensors are named {name[:80]!r}")
            arrays[name] = tensor.array() if isinstance(tensor, StridedTensor) else tensor
            if isinstance(tensor, StridedTensor):
                spans[name] = tensor.span()
    return Checkpoint(arrays, format_name, walker.scalars, tuple(passed), spans)


def _choose(tensors: dict[Path, Tensor], entry: str | None) -> Path:
    """The path whose tensors are the weights."""
    if entry is not None:
        chosen = tuple(entry.split(".")) if entry else ()
        if not any(path[: len(chosen)] == chosen and len(path) > len(chosen) for path in tensors):
            holders = sorted({path[0] for path in tensors if len(path) > 1})
            raise FormatError(f"`entry` (={entry!r}) holds no tensors; these do: {', '.join(holders) or 'none, they lie at the top'}")
        return chosen
    holders = dict.fromkeys(path[0] for path in tensors if len(path) > 1)
    if any(len(path) == 1 for path in tensors) or any("." in name for name in holders):
        return ()
    known = [name for name in ENTRIES if name in holders]
    return (known[0],) if known else tuple(holders) if len(holders) == 1 else ()


def _others(tensors: dict[Path, Tensor], chosen: Path) -> list[PassedOver]:
    counts: dict[str, int] = {}
    for path in tensors:
        if path[: len(chosen)] != chosen:
            counts[path[0]] = counts.get(path[0], 0) + 1
    return [PassedOver(name, f"{count} tensors beside those of {'.'.join(chosen)!r}; `entry={name!r}` reads them instead")
            for name, count in counts.items()]


class _Walker:
    """Visits each place of a tree once per path that leads there, within limits that only hostile files meet."""

    def __init__(self) -> None:
        self.tensors: dict[Path, Tensor] = {}
        self.scalars: dict[str, Any] = {}
        self.passed_over: dict[str, str] = {}
        self.nodes = 0

    def visit(self, value: Any, path: Path) -> None:
        """Record the tensors and scalars at and below `value`."""
        self._count(1)
        if len(path) > MAX_DEPTH:
            raise FormatError(f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
        name = ".".join(path)
        if isinstance(value, (StridedTensor, np.ndarray, NumpyArray)):
            self._tensor(value.array if isinstance(value, NumpyArray) else value, path)
        elif isinstance(value, SCALARS) or (isinstance(value, (list, tuple)) and self._plain(value)):
            self.scalars[name] = value
        elif isinstance(value, Placeholder):
            self._placeholder(value, path)
        elif not isinstance(value, Named):
            for key, item in self._items(value):
                self.visit(item, (*path, key))

    def _count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise FormatError(f"holds more than {MAX_NODES} entries, as files do that repeat one list many times")

    def _plain(self, value: list[Any] | tuple[Any, ...]) -> bool:
        self._count(len(value))
        return all(isinstance(item, SCALARS) for item in value)

    def _tensor(self, tensor: Tensor | None, path: Path) -> None:
        if tensor is None:
            self.passed_over[".".join(path)] = "a NumPy array of objects or text"
        elif path in self.tensors:
            raise FormatError(f"two tensors are named {'.'.join(path)[:80]!r}")
        else:
            self.tensors[path] = tensor

    @staticmethod
    def _items(value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for i, (key, item) in enumerate(value.items()):
                yield _component(key, i), item
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                yield str(i), item

    def _placeholder(self, value: Placeholder, path: Path) -> None:
        """A whole pickled network keeps its tensors in its modules' dictionaries: they are read, the classes stay names."""
        state = value.state if isinstance(value.state, dict) else {}
        parts = [state[key] for key in ("_parameters", "_buffers", "_modules") if isinstance(state.get(key), dict)]
        if not parts:
            self.passed_over[".".join(path)] = f"an object of {value.name[:80]}, which is not built"
        temporary = state.get("_non_persistent_buffers_set")
        temporary = temporary if isinstance(temporary, list) else []
        for part in parts:
            for key, item in self._items(part):
                if item is not None and key not in temporary:
                    self.visit(item, (*path, key))


def _component(key: Any, i: int) -> str:
    """The i-th key of a mapping as a part of a dotted name; an object has no name but its place."""
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    if isinstance(key, (Placeholder, StridedTensor)):
        return f"#{i}"
    return key.name if isinstance(key, Named) else str(key)
