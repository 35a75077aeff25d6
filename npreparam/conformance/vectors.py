"""Golden vectors: inputs, attributes, expected results and sound bounds in files that any language can read.

A folder holds one file for each case (.safetensors or .npz), or for `onnx` one folder in the layout of the ONNX backend tests (model.onnx,
test_data_set_0/input_0.pb, ..., output_0.pb, ..., and bound_0.pb, ... beside them), and manifest.json, which is written last. Tensors are named
input.x, expected.y, bound.y. An implementation agrees where |actual - expected| <= bound; where `expected` is NaN, `actual` must be NaN, and
where it is infinite, equal. A bound of 0 asks for equality.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import __version__
from npreparam._errors import ArgumentError, FormatError
from npreparam.checkpoints import load, save
from npreparam.checkpoints._files import written
from npreparam.conformance.case import Case, Key
from npreparam.conformance.cases import keys, make_case
from npreparam.conformance.cases.tables import TABLES
from npreparam.conformance.signatures import OPS, PARAMETERS
from npreparam.conformance.target import Declaration
from npreparam.conformance.truth import truths

Array = NDArray[Any]
FORMATS = ("npz", "onnx", "safetensors")
MANIFEST = "manifest.json"
PHASES = ("exact", "geometry", "random")
OF_ONNX = ("conv2d", "conv_transpose2d", "linear", "batch_norm", "avg_pool2d", "max_pool2d", "softplus", "sigmoid", "tanh", "log_softmax",
           "cross_entropy")  # functions that have an ONNX operator
RULE = "|actual - expected| <= bound; NaN where expected is NaN, equal where it is infinite"


def vector_keys(ops: Iterable[str] = OPS, dtypes: Iterable[str] = ("float32", "float64"), seed: int = 0, count: int = 6) -> list[Key]:
    """The cases of a set: the first `count` of each phase, function and dtype.

    >>> len(vector_keys(["tanh"], ["float32"], count=2))
    6
    """
    return [key for op in ops for dtype in dtypes for phase in PHASES
            for key in keys(op, phase, dtype, seed, range(min(count, len(TABLES[op])) if phase == "geometry" else count))]


def write_vectors(folder: Path | str, form: str = "safetensors", ops: Sequence[str] = OPS, dtypes: Sequence[str] = ("float32", "float64"),
                  seed: int = 0, count: int = 6, step: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write a set of vectors into a folder that exists, and return its manifest; the same arguments give the same bytes.

    `form` is "npz", "onnx" (only functions that have an ONNX operator) or "safetensors"; `step` is told how many of how many are written.

    Raises ArgumentError, DTypeError (bfloat16 as npz), OSError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(write_vectors(folder, "npz", ["tanh"], ["float32"], count=1)["vectors"]), verify_vectors(folder)
    (3, [])
    """
    if form not in FORMATS:
        raise ArgumentError(f"`form` (={form!r}) must be one of {', '.join(FORMATS)}")
    ops = [op for op in ops if form != "onnx" or op in OF_ONNX]
    if not ops:
        raise ArgumentError(f"`ops` has no function with an ONNX operator; those that have one are {', '.join(OF_ONNX)}")
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # an interrupted run leaves none
    chosen = vector_keys(ops, dtypes, seed, count)
    records = []
    for number, key in enumerate(chosen, 1):
        case = make_case(key)
        records.append(_write_case(folder, form, _as_onnx(case) if form == "onnx" else case))
        if step is not None:
            step(number, len(chosen))
    manifest = {"producer": "npreparam", "version": __version__, "format": form, "seed": seed, "rule": RULE, "vectors": records}
    with written(folder / MANIFEST) as file:
        file.write((json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def verify_vectors(folder: Path | str) -> list[str]:
    """What is wrong with a folder of vectors, one line each; nothing if all is as it was written.

    Every file must be there with the checksum of the manifest, and hold the tensors that it lists. Raises FormatError (no usable manifest).
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        records, form = manifest["vectors"], manifest["format"]
        listed = [(str(name), str(digest)) for record in records for name, digest in record["files"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{folder / MANIFEST}: no usable manifest: {type(error).__name__}: {error}") from None
    found = [fault for name, digest in listed if (fault := _fault(folder, name, digest))]
    if not found and form != "onnx":
        found = [fault for record in records for fault in _differences(folder, record)]
    return found


def _fault(folder: Path, name: str, digest: str) -> str:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        return f"{name}: lies outside of the folder"
    if not path.is_file():
        return f"{name}: is missing"
    return "" if _digest(path) == digest else f"{name}: has another checksum than in the manifest"


def _differences(folder: Path, record: Mapping[str, Any]) -> Iterator[str]:
    name = next(iter(record["files"]))
    tensors = load(folder / name).arrays
    for row in (*record["inputs"], *record["expected"], *record["bound"]):
        tensor = tensors.get(row["tensor"])
        if tensor is None or [tensor.dtype.name, list(tensor.shape)] != [row["dtype"], row["shape"]]:
            yield f"{name}: {row['tensor']} is not {row['dtype']} of shape {row['shape']}"


def _write_case(folder: Path, form: str, case: Case) -> dict[str, Any]:
    """Write one case; its row of the manifest."""
    inputs, attributes = flattened(case.arguments)
    declaration = Declaration("", running_variance="biased" if form == "onnx" else "unbiased")
    found = truths(case, declaration)
    expected = {truth.name: truth.rounded for truth in found}
    bound = {truth.name: np.zeros(truth.value.shape) if case.exact else around_rounded(truth.rounded, truth.value, truth.bound) for truth in found}
    place = f"{case.op}/{case.phase}-{case.dtype}-{case.key.index if case.key else 0}"
    if form == "onnx":
        files = _write_onnx(folder / place, case, expected, bound)
    else:
        path = folder / f"{place}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, {f"{group}.{name}": array for group, arrays in (("input", inputs), ("expected", expected), ("bound", bound))
                    for name, array in arrays.items()})
        files = [path]
    return {"name": str(case.key), "op": case.op, "about": case.name, "inputs": _rows("input", inputs), "attributes": attributes,
            "expected": _rows("expected", expected), "bound": _rows("bound", bound),
            "files": {path.relative_to(folder).as_posix(): _digest(path) for path in files}}


def _as_onnx(case: Case) -> Case:
    """With `eps` and `momentum` as ONNX can hold them: attributes are float32 numbers, and momentum is the weight of the old statistic."""
    rounded = {"eps": lambda eps: float(np.float32(eps)), "momentum": lambda momentum: 1.0 - float(np.float32(1.0 - momentum))}
    defaults = {name: value for name, value in PARAMETERS[case.op].items() if name in rounded}
    return dataclasses.replace(case, arguments={**case.arguments, **{name: rounded[name](case.arguments.get(name, value))
                                                                     for name, value in defaults.items()}})


def flattened(arguments: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and plain values of a call, each under its name; of a tuple with arrays, as "bn3[0]".

    >>> flattened({"x": np.zeros(1), "bn": (np.ones(1), 0.5), "padding": (1, 2), "b": None})
    ({'x': array([0.]), 'bn[0]': array([1.])}, {'bn[1]': 0.5, 'padding': (1, 2)})
    """
    parts: dict[str, Any] = {}
    for name, value in arguments.items():
        mixed = isinstance(value, tuple) and any(isinstance(part, np.ndarray) for part in value)
        parts |= {f"{name}[{i}]": part for i, part in enumerate(value)} if mixed else {name: value}
    inputs = {name: value for name, value in parts.items() if isinstance(value, np.ndarray)}
    return inputs, {name: value for name, value in parts.items() if name not in inputs and value is not None}


def around_rounded(rounded: Array, value: Array, bound: Array) -> Array:
    """A bound around a rounded value, from one around the value itself: wider by the rounding; 0 where there is nothing to measure."""
    with np.errstate(all="ignore"):
        apart = np.abs(rounded.astype(np.float64) - value)
        wider = np.where((bound == 0) & (apart == 0), 0.0, np.nextafter(bound + apart, np.inf))
    return np.where(np.isfinite(rounded.astype(np.float64)) & np.isfinite(value), wider, 0.0)


def _rows(group: str, arrays: Mapping[str, Array]) -> list[dict[str, Any]]:
    return [{"tensor": f"{group}.{name}", "dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_onnx(folder: Path, case: Case, expected: Mapping[str, Array], bound: Mapping[str, Array]) -> list[Path]:
    """The model and its data, in the layout of the ONNX backend tests; the files written."""
    try:
        from onnx import numpy_helper
    except ImportError:
        raise ImportError("ONNX vectors need the onnx package: pip install 'npreparam[onnx]'") from None
    from npreparam.conformance.adapters._graphs import graph_of

    model, inputs = graph_of(case.op, case.arguments)
    contents = {"model.onnx": model}
    for group, arrays in (("input", inputs), ("output", expected), ("bound", bound)):
        for number, (name, array) in enumerate(arrays.items()):
            contents[f"test_data_set_0/{group}_{number}.pb"] = numpy_helper.from_array(np.asarray(array), name).SerializeToString(deterministic=True)
    (folder / "test_data_set_0").mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with written(folder / name) as file:
            file.write(content)
    return [folder / name for name in contents]
