"""What `fuse` and `verify` print: few lines where much is wrong, and tables of which nothing is cut, however narrow the terminal."""

import io
import json

import numpy as np
import pytest

pytest.importorskip("typer")

from rich.console import Console

from npreparam.checkpoints import fuse, load, recognise, save
from npreparam.cli import fuse as command
from npreparam.cli.output import show
from tests.checkpoints.states import STATES, state
from tests.test_cli_fuse import one_line, run


def many(tmp_path, count=9):
    """A checkpoint of several RepVGG blocks with long names, and its fused twin."""
    names = [f"a_rather_long_name_of_a_network.with_a_stage_in_it.{i}." for i in range(count)]
    tensors = {name: np.float32(value) for each in names for name, value in state(STATES["repvgg"], each).items()}
    save(tmp_path / "many.npz", tensors)
    result = run("fuse", tmp_path / "many.npz", tmp_path / "fused.npz", "--family", "repvgg")
    assert result.exit_code == 0, result.output
    return names, result


def test_a_pair_that_does_not_belong_together_is_told_in_few_lines(tmp_path):
    names, _ = many(tmp_path)
    stored = dict(load(tmp_path / "fused.npz"))
    save(tmp_path / "other.npz", {name: value + 1 + i for i, (name, value) in enumerate(stored.items())})
    result = run("verify", tmp_path / "many.npz", tmp_path / "other.npz", "--family", "repvgg", "--report", tmp_path / "r.json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert "other.npz is not many.npz, fused: 9 things are wrong" in lines[0]
    assert len(lines) == 1 + command.LINES
    assert all(name.strip(".") in line for name, line in zip(names, lines[1:-1], strict=False))
    assert f"and {len(names) - len(lines[1:-1])} more, which --report FILE lists" in lines[-1]
    assert len(json.loads((tmp_path / "r.json").read_text())["faults"]) == len(names)


def test_a_table_in_a_pipe_is_not_cut(tmp_path):
    names, result = many(tmp_path)
    assert all(any(name.strip(".") in line for line in result.stdout.splitlines()) for name in names)


@pytest.mark.parametrize("width", [20, 40, 80, 300])
def test_a_table_in_a_terminal_is_folded(width, tmp_path):
    many(tmp_path, 2)
    tensors = load(tmp_path / "many.npz")
    screen = io.StringIO()
    show(command.table(fuse(tensors, recognise(tensors, "repvgg")).rows), Console(file=screen, force_terminal=True, color_system=None, width=width))
    text = screen.getvalue()
    assert "…" not in text
    head, *body = text.replace("┃", "│").split("╇")[0], text.split("┩")[1]
    columns = ["".join(line.split("│")[1].strip() for line in part.splitlines() if "│" in line) for part in (head, *body)]
    assert columns == ["block", "".join(f"a_rather_long_name_of_a_network.with_a_stage_in_it.{i}" for i in range(2))]
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width


def test_one_reason_for_many_blocks_is_one_line(tmp_path):
    many(tmp_path)
    result = run("fuse", tmp_path / "many.npz", tmp_path / "out.npz")  # RepVGG's or YOLOv6's
    assert one_line(result), result.output
    assert "and 8 more alike (--dry-run --force --report FILE lists them): its tensors do not tell eps" in result.stderr


def test_a_file_that_is_fused_already_is_told(tmp_path):
    many(tmp_path)
    result = run("verify", tmp_path / "fused.npz", tmp_path / "many.npz")
    assert one_line(result), result.output
    assert "it seems to be fused already: it has a_rather_long_name_of_a_network.with_a_stage_in_it.0.rbr_reparam.weight" in result.stderr
