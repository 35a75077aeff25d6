"""Which option means something where: what has no effect is refused in one line, and every option of `fuse` and `verify` is in the table."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("typer")

from typer.main import get_command

from npreparam.checkpoints import save
from npreparam.cli.app import app
from tests.checkpoints.graphs import Builder, written
from tests.checkpoints.states import STATES, state
from tests.test_cli_fuse import one_line, run

TENSORS, GRAPH, BOTH = {"tensors"}, {"graph"}, {"tensors", "graph"}
EFFECT = {  # option: (what to give, of which kind of file it means something)
    "--family": ("repvgg", TENSORS), "--eps": ("1e-3", TENSORS), "--stride": ("1", TENSORS), "--identity": (None, set()),
    "--no-identity": (None, set()), "--transposed": ("0", set()), "--inputs": ("x.npy", TENSORS), "--dtype": ("float16", TENSORS),
    "--force": (None, TENSORS), "--largest": (None, BOTH), "--dry-run": (None, BOTH), "--max-input": ("2", BOTH), "--report": ("r.json", BOTH),
    "--html": ("r.html", BOTH), "--overwrite": (None, BOTH)}
NEEDS = {"--overwrite": ("--html", "r.html")}  # of verify, which writes nothing else
COMMANDS = {name: {option for parameter in get_command(app).commands[name].params for option in (*parameter.opts, *parameter.secondary_opts)
                   if option.startswith("--") and option != "--help"} for name in ("fuse", "verify")}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A RepVGG block, a graph and an input, each with its fused twin."""
    monkeypatch.chdir(tmp_path)
    save("m.safetensors", {name: np.float32(value) for name, value in state(STATES["repvgg"], "stage.0.").items()})
    b = Builder(dtype=np.float32)
    written(tmp_path, b.model(b.norm(b.conv("x", 4, 3, 1))))
    np.save("x.npy", np.ones((1, 4, 5, 5), np.float32))
    assert run("fuse", "m.safetensors", "fused.safetensors", "--eps", "1e-3").exit_code == 0
    assert run("fuse", "m.onnx", "fused.onnx").exit_code == 0
    return tmp_path


def test_the_table_is_complete():
    assert set(EFFECT) == COMMANDS["fuse"] | COMMANDS["verify"]


@pytest.mark.parametrize(("command", "option"), [(command, option) for command in COMMANDS for option in sorted(COMMANDS[command])])
@pytest.mark.parametrize("kind", sorted(BOTH))
def test_an_option_means_something_or_is_refused(command, option, kind, files):
    value, kinds = EFFECT[option]
    ending = {"tensors": ".safetensors", "graph": ".onnx"}[kind]
    given = [option, *([value] if value else []), *(NEEDS.get(option, ()) if command == "verify" else ())]
    needed = ["--eps", "1e-3"] if kind == "tensors" and command == "fuse" and option not in ("--eps", "--family") else []
    before = set(files.iterdir())
    result = run(command, f"m{ending}", f"{'out' if command == 'fuse' else 'fused'}{ending}", *given, *needed)
    if kind in kinds and (command, option) != ("verify", "--family"):  # the file says another eps, which the family then contradicts
        assert result.exit_code == 0, result.output
    elif kind not in kinds:
        assert one_line(result), result.output
        assert option.removeprefix("--no-").strip("-") in result.stderr
        assert set(files.iterdir()) == before


@pytest.mark.parametrize(("command", "given"), [("verify", ("--overwrite",)), ("fuse", ("--eps", "1e-3", "--dry-run", "--overwrite"))])
def test_nothing_to_overwrite(command, given, files):
    result = run(command, "m.safetensors", "fused.safetensors", *given)
    assert one_line(result)
    assert "--overwrite has no effect" in result.stderr


@pytest.mark.parametrize(("options", "why"), [(("--family", "conv3xc", "--eps", "1e-5"), "no block has a batch norm"),
                                              (("--family", "conv3xc", "--no-identity"), "tells itself whether")])
def test_answers_that_no_block_asks_for(options, why, tmp_path):
    save(tmp_path / "m.npz", {name: np.float32(value) for name, value in state(STATES[options[1]], "m.").items()})
    result = run("fuse", tmp_path / "m.npz", tmp_path / "out.npz", *options)
    assert one_line(result), result.output
    assert why in result.stderr


def test_a_stride_that_an_identity_branch_contradicts(files):
    result = run("fuse", "m.safetensors", "out.safetensors", "--family", "repvgg", "--stride", "2")
    assert one_line(result), result.output
    assert "--stride (=2) has no effect" in result.stderr


def test_a_transposed_convolution_that_is_there(tmp_path):
    norm = {f"1.{name}": np.ones(4, np.float32) for name in ("weight", "bias", "running_mean", "running_var")}
    save(tmp_path / "m.npz", {"0.weight": np.ones((4, 4, 3, 3), np.float32)} | norm)
    given = ("fuse", tmp_path / "m.npz", tmp_path / "out.npz", "--eps", "1e-5", "--stride", "1", "--transposed")
    assert one_line(run(*given, "1"))
    assert run(*given, "0").exit_code == 0


@pytest.mark.parametrize("name", ["text.txt", "repvg", "mine.tml"])
def test_a_family_that_is_none_names_those_that_are(name, files):
    (files / "text.txt").write_text("nothing")
    result = run("fuse", "m.safetensors", "out.safetensors", "--family", name)
    assert one_line(result)
    assert all(part in result.stderr for part in (name, "must be auto or one of", "repvgg, ", "unireplknet", "a file that ends in .toml"))
