"""`fuse` and `verify` of ONNX graphs: what they refuse, what they write, and when they write nothing."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("typer")

import onnx

from tests.checkpoints.graphs import Builder, written
from tests.checkpoints.real import real
from tests.test_cli_fuse import one_line, run


def test_nothing_to_fuse_is_told(tmp_path):
    result = run("fuse", real("rfb320_with_postprocessing_simplified_by_authors.onnx"), tmp_path / "out.onnx")
    assert one_line(result)
    assert "no region of its graph can be fused" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small(tmp_path):
    b = Builder(dtype=np.float32)
    return written(tmp_path, b.model(b.norm(b.conv("x", 4, 3, 1))))


@pytest.mark.parametrize(("options", "told"), [(("--eps", "0"), "--eps"), (("--family", "dbb"), "--family"), (("--dtype", "float16"), "--dtype"),
                                               (("--identity",), "--identity"), (("--inputs", "x.npy"), "--inputs"), (("--force",), "--force")])
def test_answers_that_a_graph_gives_itself(options, told, small):
    result = run("fuse", small, small.with_name("out.onnx"), *options)
    assert one_line(result)
    assert f"{told} " in result.stderr
    assert not small.with_name("out.onnx").exists()


def test_a_graph_needs_a_graph(small):
    weights = small.with_name("w.safetensors")
    weights.write_bytes(b"")
    for result in (run("fuse", weights, small.with_name("out.onnx")), run("verify", weights, small)):
        assert one_line(result)
        assert "only tensors" in result.stderr


def test_broken_bounds_write_nothing(small, monkeypatch):
    """Planted fault: parameters rounded to float16 on the way."""
    from npreparam.checkpoints.graph import transform
    right = transform.stored
    monkeypatch.setattr(transform, "stored", lambda w, b, dtype: right(w.astype(np.float16) * 1.001, b, dtype))
    result = run("fuse", small, small.with_name("out.onnx"), "--report", small.with_name("r.json"))
    assert result.exit_code == 1
    assert "stored numbers are not" in result.stderr
    assert [path.name for path in small.parent.iterdir()] == [small.name]


def test_dry_run_and_largest(tmp_path):
    b = Builder(8, dtype=np.float32)
    path = written(tmp_path, b.model(b.conv(b.norm(b.conv("x", 8, 1, bias=False)), 8, 3, groups=8)))
    assert run("fuse", path, tmp_path / "out.onnx", "--dry-run").exit_code == 0
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]
    assert "--largest" in run("fuse", path, tmp_path / "parts.onnx").stderr
    assert run("fuse", path, tmp_path / "whole.onnx", "--largest").exit_code == 0
    assert [len(onnx.load(tmp_path / f"{name}.onnx").graph.node) for name in ("parts", "whole")] == [2, 1]
    assert run("verify", path, tmp_path / "whole.onnx").exit_code == 0
