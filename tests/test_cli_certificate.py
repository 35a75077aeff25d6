"""What `fuse` and `verify` write and refuse: pages, real inputs, a user's patterns, paths, damaged files. Every refusal is one line."""

import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("typer")

from npreparam.checkpoints import load, save
from npreparam.cli import fuse as command
from tests.checkpoints.states import STATES, state
from tests.test_cli_fuse import one_line, run

HOSTILE = '<script>alert("x")</script>&[red]'


def checkpoint(path, prefix="stage.0.", text=STATES["repvgg"]):
    save(path, {name: np.asarray(value, np.float32) for name, value in state(text, prefix).items()})
    return path


@pytest.fixture
def source(tmp_path):
    return checkpoint(tmp_path / "in.safetensors")


def fused(source, *options, out="out.safetensors"):
    return run("fuse", source, source.with_name(out), "--family", "repvgg", *options)


class Page(HTMLParser):
    """The tags and text of a page; whether what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("name", ["fuse", "verify"])
def test_the_page_stands_alone_and_escapes_names(name, tmp_path):
    source, html = checkpoint(tmp_path / "in.safetensors", f"{HOSTILE}.0."), tmp_path / "r.html"
    out = tmp_path / "out.safetensors"
    result = run("fuse", source, out, "--family", "repvgg", "--html", html)
    if name == "verify":
        result = run("verify", source, out, "--family", "repvgg", "--html", html, "--overwrite")
    assert result.exit_code == 0, result.output
    text = html.read_text()
    page = Page(text)
    assert not page.open
    assert "script" not in page.tags
    assert f"{HOSTILE}.0" in page.texts
    assert not {"src", "href", "onload"} & {attribute for attribute, _ in page.attributes}
    assert not any(reference in text for reference in ("://", "@import", "url("))
    assert "color-scheme: light dark" in text
    assert page.texts.count("yes") == 1


def test_the_page_tells_what_is_wrong(source, tmp_path):
    assert fused(source).exit_code == 0
    out = tmp_path / "out.safetensors"
    tensors = {name: np.array(value) for name, value in load(out).items()}
    tensors["stage.0.rbr_reparam.bias"][0] += 1
    save(out, tensors)
    assert run("verify", source, out, "--family", "repvgg", "--html", tmp_path / "r.html").exit_code == 1
    assert "on real inputs" not in (tmp_path / "r.html").read_text()
    page = Page((tmp_path / "r.html").read_text())
    assert "Not everything is as it should be." in page.texts
    assert any("stored numbers are not the block's" in text for text in page.texts)


@pytest.mark.parametrize("stored", ["npy", "npz"])
def test_real_inputs(stored, source, tmp_path):
    x, path = np.random.default_rng(0).uniform(-4, 4, (2, 4, 7, 6)).astype(np.float32), tmp_path / f"x.{stored}"
    np.save(path, x) if stored == "npy" else np.savez(path, **{"stage.0": x})
    result = fused(source, "--inputs", path, "--report", tmp_path / "r.json", "--html", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "r.json").read_text())
    row, = record["blocks"]
    assert row["on inputs"]["largest input"] == float(np.abs(x).max())
    assert row["on inputs"]["measured"] <= row["on inputs"]["bound"] + row["on inputs"]["evaluation bound"]
    assert record["inputs"]["file"] == path.name
    told = f"{row['on inputs']['measured']:.2e}"
    assert f"1 of 1 blocks were measured on {path.name}, those whose input channels it fits: at most {told}, of stage.0, " in result.stderr
    assert ("on inputs" in result.stdout, told in result.stdout) == (True, True)
    assert "1 of 1 blocks, those whose input channels it fits" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("stored", ["npy", "npz"])
def test_inputs_that_no_block_reads_are_refused(stored, source, tmp_path):
    x, path = np.ones((1, 3, 5, 5)), tmp_path / f"x.{stored}"
    np.save(path, x) if stored == "npy" else np.savez(path, **{"stage.0": x})
    result = fused(source, "--inputs", path)
    assert one_line(result), result.output
    assert "has 3 channels" in result.stderr
    assert "4; give what a block reads" in result.stderr


@pytest.mark.parametrize("case", ["integers", "rank", "nan", "empty", "objects", "noise", "missing", "unknown block"])
def test_bad_inputs_are_one_line(case, source, tmp_path):
    path = tmp_path / ("x.npz" if case == "unknown block" else "x.npy")
    arrays = {"integers": np.ones((1, 4, 5, 5), int), "rank": np.ones((4, 5, 5)), "nan": np.full((1, 4, 5, 5), np.nan),
              "empty": np.ones((0, 4, 5, 5)), "objects": np.array([{}], object)}
    if case in arrays:
        np.save(path, arrays[case])
    elif case == "noise":
        path.write_bytes(b"noise")
    elif case == "unknown block":
        np.savez(path, elsewhere=np.ones((1, 4, 5, 5)))
    before = set(tmp_path.iterdir())
    result = fused(source, "--inputs", path)
    assert one_line(result), result.output
    assert "--inputs" in result.stderr
    assert set(tmp_path.iterdir()) == before


def test_a_user_s_patterns_end_to_end(tmp_path):
    """The example of the help, as it stands there."""
    help_text = run("fuse", "--help").output
    lines = [line.strip() for line in help_text.splitlines()]
    first = lines.index("[[pattern]]")
    (tmp_path / "mine.toml").write_text("\n".join(lines[first : lines.index("stride = 1", first) + 1]))
    source = checkpoint(tmp_path / "in.safetensors", "body.1.", "big:4,4,3,3 big_bn:bn4 skip:bn4")
    out = tmp_path / "out.npz"
    assert one_line(run("fuse", source, out, "--dry-run", "--family", "dbb"))
    assert run("fuse", source, out, "--family", tmp_path / "mine.toml").exit_code == 0
    assert list(load(out)) == ["body.1.merged.weight", "body.1.merged.bias"]
    assert run("verify", source, out, "--family", tmp_path / "mine.toml").exit_code == 0


@pytest.mark.parametrize("text", ["", "[[pattern]]\nfamily = 'm'", "[[pattern]]\nfamily = 'm'\nexpression = 'conv('", "\0"])
def test_bad_patterns_are_one_line(text, source, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    result = run("fuse", source, tmp_path / "out.npz", "--family", tmp_path / "mine.toml")
    assert one_line(result), result.output
    assert "mine.toml" in result.stderr
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(("options", "out", "message"), [
    ((), "in.safetensors", "is the input"), ((), "there.safetensors", "exists; name another file, or --overwrite"),
    ((), "absent/out.npz", "does not exist"), ((), "out.pth", "must end in"), ((), "folder.npz", "is a folder"),
    (("--report", "there.safetensors"), "out.npz", "--report"), (("--html", "absent/r.html"), "out.npz", "--html"),
    (("--report", "r", "--html", "r"), "out.npz", "must be different files"), (("--overwrite",), "in.safetensors", "is the input")])
def test_bad_paths_are_one_line(options, out, message, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.safetensors").write_bytes(b"precious")
    (tmp_path / "folder.npz").mkdir()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    result = run("fuse", source.name, out, "--family", "repvgg", *options)
    assert one_line(result), result.output
    assert message in result.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_an_existing_file_is_replaced_when_asked(source, tmp_path):
    (tmp_path / "out.safetensors").write_bytes(b"old")
    assert fused(source, "--overwrite").exit_code == 0
    assert len(load(tmp_path / "out.safetensors")) == 2


def test_a_folder_that_may_not_be_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(command.os, "access", lambda path, mode, **options: not mode & os.W_OK)
    result = fused(source)
    assert one_line(result)
    assert "may not be written to" in result.stderr


def test_a_full_disk_leaves_nothing(source, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("npreparam.checkpoints._files.os.fsync", full)
    before = set(tmp_path.iterdir())
    assert one_line(fused(source))
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("stage.0.rbr_1x1.bn.running_var"), "has no running statistics"),
    (lambda t: t.pop("stage.0.rbr_dense.bn.running_mean"), "there is no"),
    (lambda t: t["stage.0.rbr_dense.bn.running_var"].fill(-1), "must be positive"),
    (lambda t: t["stage.0.rbr_1x1.conv.weight"].fill(np.inf), "not finite"),
    (lambda t: t.update({"stage.0.rbr_1x1.bn.weight": np.ones(3, np.float32)}), "does not have one value")])
def test_half_blocks_and_bad_numbers_are_one_line(change, message, source, tmp_path):
    tensors = {name: np.array(value) for name, value in load(source).items()}
    change(tensors)
    save(source, tensors)
    result = fused(source, "--report", tmp_path / "r.json", "--html", tmp_path / "r.html")
    assert one_line(result), result.output
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


def test_half_a_block_beside_whole_ones(tmp_path):
    whole, half = (state(STATES["repvgg"], f"stage.{i}.") for i in (0, 1))
    del half["stage.1.rbr_1x1.bn.running_var"]
    save(tmp_path / "in.npz", {name: np.float32(value) for name, value in (whole | half).items()})
    result = run("fuse", tmp_path / "in.npz", tmp_path / "out.npz", "--family", "repvgg")
    assert one_line(result), result.output
    assert "left over: repvgg: stage.1.rbr_1x1.bn has no running statistics" in result.stderr
    assert not (tmp_path / "out.npz").exists()
    assert run("fuse", tmp_path / "in.npz", tmp_path / "out.npz", "--family", "repvgg", "--force").exit_code == 0
    assert set(load(tmp_path / "out.npz")) == {"stage.0.rbr_reparam.weight", "stage.0.rbr_reparam.bias", *half}


def test_duplicate_keys_are_one_line(tmp_path):
    entry = b'"a.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = b"{" + entry + b"," + entry + b"}"
    (tmp_path / "in.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    result = run("fuse", tmp_path / "in.safetensors", tmp_path / "out.npz")
    assert one_line(result)
    assert "a.weight" in result.stderr


def test_what_is_beyond_its_bound_is_never_written(source, monkeypatch):
    """Planted fault, even with --force: a measurement that disagrees."""
    from npreparam.checkpoints import certificate
    true = certificate.evaluate
    monkeypatch.setattr(certificate, "evaluate", lambda *arguments: true(*arguments) + 1)
    result = fused(source, "--force")
    assert one_line(result)
    assert not source.with_name("out.safetensors").exists()


def test_a_block_that_would_grow_is_left_and_told(tmp_path):
    source = checkpoint(tmp_path / "in.npz", "b.", "0:4,4,3,1 1:4,4,1,3+4")
    result = run("fuse", source, tmp_path / "out.npz", "--report", tmp_path / "r.json")
    assert result.exit_code == 0
    assert "b stays as it was: one 4x4x3x3 kernel would be larger than its 2 of 96 weights (--largest)" in result.stderr
    assert json.loads((tmp_path / "r.json").read_text())["kept"]
    assert list(load(tmp_path / "out.npz")) == list(load(source))
    assert run("fuse", source, tmp_path / "one.npz", "--largest").exit_code == 0
    assert load(tmp_path / "one.npz")["b.weight"].shape == (4, 4, 3, 3)


def test_verify_takes_the_answers_that_the_fused_file_was_made_with(source, tmp_path):
    out = tmp_path / "out.safetensors"
    assert run("fuse", source, out, "--eps", "1e-3").exit_code == 0
    told = run("verify", source, out)
    assert told.exit_code == 0, told.output
    assert "as out.safetensors says it was fused with: eps 0.001" in told.output
    assert run("verify", source, out, "--eps", "1e-5").exit_code == 1  # what the user says comes first


def test_verify_of_a_file_that_says_nothing_asks_once(source, tmp_path):
    out, silent = tmp_path / "out.safetensors", tmp_path / "silent.safetensors"
    run("fuse", source, out, "--eps", "1e-3")
    save(silent, dict(load(out)))
    told = run("verify", source, silent)
    assert one_line(told)
    assert "do not tell eps" in told.output


@pytest.mark.parametrize("said", ["[", "[]", "{\"answers\": 3}", "{\"answers\": {\"eps\": \"x\", \"nonsense\": 1}}", "[" * 10_000])
def test_what_a_file_says_about_itself_may_be_nonsense(source, said, tmp_path):
    out, other = tmp_path / "out.safetensors", tmp_path / "other.safetensors"
    run("fuse", source, out, "--family", "repvgg")
    save(other, dict(load(out)), {"npreparam": said})
    assert run("verify", source, other, "--family", "repvgg").exit_code == 0


def test_verify_tells_of_another_input(source, tmp_path):
    out = tmp_path / "out.safetensors"
    run("fuse", source, out, "--family", "repvgg")
    copy = tmp_path / "copy.npz"
    save(copy, dict(load(source)))
    told = run("verify", copy, out, "--family", "repvgg")
    assert told.exit_code == 0
    assert "fused from another file" in told.output
