"""Golden vectors: deterministic bytes, checksums that catch a flipped bit, and files that strangers can read."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError, FormatError
from npreparam.checkpoints._files import PART
from npreparam.cli.app import app
from npreparam.conformance.vectors import FORMATS, MANIFEST, OF_ONNX, verify_vectors, write_vectors

FEW = ("conv2d", "batch_norm", "fuse_repvgg", "cross_entropy")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnx")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write_vectors(tmp_path / name, form, FEW, ["float32"], seed, 2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")[Path(MANIFEST)] != contents(tmp_path / "c")[Path(MANIFEST)]
    assert verify_vectors(tmp_path / "a") == []


def test_safetensors_are_read_with_nothing_but_json_and_raw_bytes(tmp_path):
    """As C++ or Rust would: a length, a header, little-endian numbers."""
    manifest = write_vectors(tmp_path, "safetensors", ["linear"], ["float32"], 0, 3)
    for record in manifest["vectors"]:
        content = (tmp_path / next(iter(record["files"]))).read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header, tensors = json.loads(content[8 : 8 + size]), {}
        for row in (*record["inputs"], *record["expected"], *record["bound"]):
            begin, end = header[row["tensor"]]["data_offsets"]
            kind = {"F32": "<f4", "F64": "<f8"}[header[row["tensor"]]["dtype"]]
            tensors[row["tensor"]] = np.frombuffer(content[8 + size + begin : 8 + size + end], kind).reshape(row["shape"])
        y = ops.linear(tensors["input.x"], tensors["input.w"], tensors.get("input.b"))
        assert (np.abs(y.astype(np.float64) - tensors["expected.y"]) <= tensors["bound.y"]).all()


def test_records_are_in_order_and_bounds_are_zero_where_everything_is_exact(tmp_path):
    manifest = write_vectors(tmp_path, "npz", ["conv2d"], ["float64"], 0, 3)
    for record in manifest["vectors"]:
        assert list(record) == ["name", "op", "about", "inputs", "attributes", "expected", "bound", "files"]
        arrays = np.load(tmp_path / next(iter(record["files"])))
        assert (arrays["bound.y"].max() > 0) == (record["name"].split("/")[1] == "random")
        call = {row["tensor"].removeprefix("input."): arrays[row["tensor"]] for row in record["inputs"]} | record["attributes"]
        y = ops.conv2d(**call)
        assert (np.abs(y - arrays["expected.y"]) <= arrays["bound.y"])[np.isfinite(arrays["expected.y"])].all()


@pytest.mark.parametrize(("name", "fault"), [("linear/exact-float32-0.npz", "has another checksum"), ("linear/random-float32-0.npz", "is missing")])
def test_a_folder_that_was_changed_is_seen(tmp_path, name, fault):
    write_vectors(tmp_path, "npz", ["linear"], ["float32"], 0, 1)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink() if "missing" in fault else path.write_bytes(content)
    assert verify_vectors(tmp_path) == [f"{name}: {fault}" + (" than in the manifest" if "checksum" in fault else "")]


def test_a_manifest_that_lies_is_seen(tmp_path):
    write_vectors(tmp_path, "safetensors", ["tanh"], ["float32"], 0, 1)
    text = (tmp_path / MANIFEST).read_text()
    (tmp_path / MANIFEST).write_text(text.replace('"float32"', '"float16"', 1))
    assert len(verify_vectors(tmp_path)) == 1
    (tmp_path / MANIFEST).write_text(text.replace("tanh/exact", "../../tanh/exact"))
    assert any("outside" in fault for fault in verify_vectors(tmp_path))
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(FormatError, match="no usable manifest"):
        verify_vectors(tmp_path)


def test_an_interrupted_run_leaves_no_manifest(tmp_path):
    write_vectors(tmp_path, "npz", ["tanh"], ["float32"], 0, 1)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_vectors(tmp_path, "npz", ["tanh"], ["float32"], 0, 1, interrupt)
    assert not (tmp_path / MANIFEST).exists()
    assert not list(tmp_path.rglob(f"*{PART}"))


def test_onnx_vectors_run_in_the_official_layout(tmp_path):
    """The ONNX project's own evaluator agrees, within the bounds; what it gets wrong is left out (docs/findings.md)."""
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    trusted = [op for op in OF_ONNX if op not in ("conv_transpose2d", "max_pool2d", "log_softmax", "cross_entropy")]
    manifest = write_vectors(tmp_path, "onnx", trusted, ["float32", "float64"], 0, 4)
    seen = 0
    for record in manifest["vectors"]:
        folder = tmp_path / next(iter(record["files"]))
        read = {group: [onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
                        for path in sorted((folder.parent / "test_data_set_0").glob(f"{group}_*.pb"))] for group in ("input", "output", "bound")}
        model = onnx.load(folder)
        onnx.checker.check_model(model)
        with np.errstate(all="ignore"):
            actual = ReferenceEvaluator(model).run(None, dict(zip([value.name for value in model.graph.input], read["input"], strict=True)))
        for y, expected, bound in zip(actual, read["output"], read["bound"], strict=True):
            assert y.shape == expected.shape
            finite = np.isfinite(expected)
            assert (np.abs(y.astype(np.float64) - expected) <= bound)[finite].all(), record["name"]
            seen += 1
    assert seen > 120


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"`form` \(='csv'\)"):
        write_vectors(tmp_path, "csv")
    with pytest.raises(ArgumentError, match="no function with an ONNX operator"):
        write_vectors(tmp_path, "onnx", ["gaussian_kl"])
    with pytest.raises(DTypeError, match=r"\.safetensors"):
        write_vectors(tmp_path, "npz", ["tanh"], ["bfloat16"], 0, 1)


def test_the_command(tmp_path):
    runner, folder = CliRunner(), tmp_path / "vectors"
    options = ["--ops", "tanh,linear", "--dtypes", "float32", "--count", "1"]
    assert runner.invoke(app, ["vectors", str(folder), *options]).exit_code == 0
    assert "as they were written" in runner.invoke(app, ["vectors", str(folder), "--check"]).output
    again = runner.invoke(app, ["vectors", str(folder), *options])
    assert again.exit_code == 1
    assert "not empty" in again.output
    assert runner.invoke(app, ["vectors", str(folder), *options, "--overwrite"]).exit_code == 0
    (folder / "tanh/exact-float32-0.safetensors").unlink()
    broken = runner.invoke(app, ["vectors", str(folder), "--check"])
    assert broken.exit_code == 1
    assert "is missing" in broken.output


@pytest.mark.parametrize(("options", "message"), [(["--ops", "conv9"], "conv9"), (["--dtypes", "int8"], "int8"), (["--format", "csv"], "csv"),
                                                  (["--format", "npz", "--dtypes", "bfloat16"], "safetensors"), (["--check"], "no usable manifest")])
def test_the_command_names_what_is_wrong(tmp_path, options, message):
    done = CliRunner().invoke(app, ["vectors", str(tmp_path), *options])
    assert done.exit_code == 1
    assert message in done.output


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["vectors", str(tmp_path / "file")])
    assert done.exit_code == 1
    assert "is a file" in done.output


def test_importing_vectors_loads_no_onnx():
    done = subprocess.run([sys.executable, "-c", "import npreparam.conformance.vectors, sys; print('onnx' in sys.modules)"], capture_output=True,
                          text=True, check=True)
    assert done.stdout == "False\n"
