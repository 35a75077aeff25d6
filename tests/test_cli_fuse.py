"""`fuse` and `verify`: real checkpoints fused and found correct, small faults found, refusals of one line that leave nothing behind."""

import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from npreparam.checkpoints import load, recognise, save
from npreparam.checkpoints._read import Reader
from npreparam.checkpoints.certificate import certify
from npreparam.checkpoints.fold import EXACTLY, fold, kernel_of
from npreparam.cli.app import app
from npreparam.fuse import fuse_repvgg
from npreparam.fuse.scalars import Magnitudes
from tests.checkpoints import evaluate as naive
from tests.checkpoints.answers import EXPECTED, NOTHING_TO_FUSE
from tests.checkpoints.real import NAMES, real
from tests.checkpoints.states import STATES, state


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def one_line(result):
    return result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and "Traceback" not in result.output


@pytest.fixture
def small(tmp_path):
    """A RepVGG block and a tensor beside it."""
    tensors = {name: np.asarray(value, np.float32) for name, value in state(STATES["repvgg"], "stage.0.").items()}
    save(tmp_path / "in.safetensors", tensors | {"head.weight": np.eye(3, dtype=np.float32)})
    return tmp_path / "in.safetensors"


@pytest.fixture
def pair(small):
    out = small.with_name("out.safetensors")
    result = run("fuse", small, out, "--family", "repvgg", "--report", small.with_name("r.json"))
    assert result.exit_code == 0, result.output
    return small, out


@pytest.mark.parametrize("name", EXPECTED)
def test_real_checkpoints_are_fused_and_verified(name, tmp_path):
    source, out, report = real(name), tmp_path / "out.safetensors", tmp_path / "r.json"
    answers, blocks, refused = EXPECTED[name]
    result = run("fuse", source, out, *answers, "--report", report, *(("--force",) if refused else ()))
    assert result.exit_code == 0, result.output
    record = json.loads(report.read_text())
    assert (len(record["blocks"]), len(record["refused"]), record["faults"]) == (blocks, refused, [])
    assert all(row["held"] and row["measured"] <= row["bound"] + row["evaluation bound"] for row in record["blocks"])
    assert {row["rounding"] for row in record["blocks"]} <= {EXACTLY}
    assert record["output"]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert record["input"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    verify = ("verify", source, out, *(answer for answer in answers if answer != "--largest"))
    assert run(*verify).exit_code == bool(refused)
    assert run(*verify, "--force").exit_code == 0


def test_every_real_checkpoint_is_in_the_table():
    assert {name for name in NAMES if not name.endswith(".onnx")} <= {*EXPECTED, *NOTHING_TO_FUSE, "no folder"}


@pytest.mark.parametrize("name", sorted(NOTHING_TO_FUSE))
def test_a_fused_checkpoint_has_nothing_to_fuse(name, tmp_path):
    assert one_line(run("fuse", real(name), tmp_path / "out.safetensors"))
    assert not list(tmp_path.iterdir())


def test_a_refused_checkpoint_leaves_nothing(tmp_path):
    result = run("fuse", real("bsrn_biased_pointwise_must_refuse.pth"), tmp_path / "out.safetensors", "--report", tmp_path / "r.json")
    assert result.exit_code == 1
    assert "biased pointwise" in result.stderr
    assert one_line(result)
    assert "and 36 more alike (--dry-run --force --report FILE lists them): a biased pointwise" in result.stderr
    assert not list(tmp_path.iterdir())
    listed = ("--dry-run", "--force", "--report", tmp_path / "r.json")
    assert run("fuse", real("bsrn_biased_pointwise_must_refuse.pth"), tmp_path / "out.safetensors", *listed).exit_code == 0
    assert len(json.loads((tmp_path / "r.json").read_text())["refused"]) == 37


def test_force_keeps_refused_blocks_as_they_are(tmp_path):
    source, out = real("bsrn_biased_pointwise_must_refuse.pth"), tmp_path / "out.safetensors"
    assert run("fuse", source, out, "--force").exit_code == 0
    assert run("verify", source, out).exit_code == 1
    assert run("verify", source, out, "--force").exit_code == 0
    before, after = load(source), load(out)
    assert list(before) == list(after)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_the_fused_weights_are_those_of_the_algebra(pair):
    source, out = map(load, pair)
    names = ("weight", "bias", "running_mean", "running_var")
    branches = []
    for conv, norm in (("rbr_dense.conv.weight", "rbr_dense.bn"), ("rbr_1x1.conv.weight", "rbr_1x1.bn"), (None, "rbr_identity")):
        bn = (*(source[f"stage.0.{norm}.{name}"] for name in names), 1e-5)
        branches.append((source[f"stage.0.{conv}"].astype(np.float64), bn) if conv else bn)
    (w3, bn3), (w1, bn1), identity = branches
    w, b = fuse_repvgg(w3, bn3, w1, bn1, identity)
    assert list(out) == ["stage.0.rbr_reparam.weight", "stage.0.rbr_reparam.bias", "head.weight"]
    for ours, theirs in ((out["stage.0.rbr_reparam.weight"], w), (out["stage.0.rbr_reparam.bias"], b)):
        assert (np.abs(ours - theirs) <= np.spacing(np.abs(ours))).all()


def test_verify_accepts_what_fuse_wrote(pair):
    assert run("verify", *pair, "--family", "repvgg").exit_code == 0


@pytest.mark.parametrize("fault", ["two ulps", "a thousandth", "passed through", "missing", "shape"])
def test_verify_catches(fault, pair):
    source, out = pair
    tensors = {name: np.array(value) for name, value in load(out).items()}
    weight = tensors["stage.0.rbr_reparam.weight"]
    if fault == "two ulps":
        weight[1, 2, 0, 1] += 2 * np.spacing(weight[1, 2, 0, 1])
    elif fault == "a thousandth":
        weight[0, 0, 1, 1] += 1e-3
    elif fault == "passed through":
        tensors["head.weight"][0, 0] = -1
    elif fault == "missing":
        del tensors["stage.0.rbr_reparam.bias"]
    else:
        tensors["stage.0.rbr_reparam.weight"] = weight[..., 1:]
    bad = out.with_name("bad.safetensors")
    save(bad, tensors)
    assert one_line(run("verify", source, bad, "--family", "repvgg"))


def test_dry_run_writes_nothing(small, tmp_path):
    before = set(tmp_path.iterdir())
    assert run("fuse", small, tmp_path / "out.safetensors", "--family", "repvgg", "--dry-run").exit_code == 0
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", [("--family", "nobody"), ("--family", "nowhere.toml"), ("--dtype", "int8", "--family", "repvgg"),
                                       (), ("--family", "dbb")])
def test_bad_arguments_are_one_line(arguments, small, tmp_path):
    """Without a family RepVGG and YOLOv6 share their names, so eps must be given."""
    before = set(tmp_path.iterdir())
    result = run("fuse", small, tmp_path / "out.safetensors", *arguments)
    assert one_line(result), result.output
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"nonsense" * 9, b"\x80\x02cos\nsystem\nX\x04\0\0\0truetR."])
def test_bad_files_are_one_line(content, tmp_path):
    (tmp_path / "in.pth").write_bytes(content)
    assert one_line(run("fuse", tmp_path / "in.pth", tmp_path / "out.npz"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


@pytest.mark.parametrize(("part", "value"), [("rbr_dense.bn.running_var", -1), ("rbr_1x1.conv.weight", np.nan)])
def test_bad_numbers_are_one_line(part, value, small):
    tensors = {name: np.array(array) for name, array in load(small).items()}
    tensors[f"stage.0.{part}"].flat[0] = value
    save(small, tensors)
    assert one_line(run("fuse", small, small.with_name("out.npz"), "--family", "repvgg"))
    assert not small.with_name("out.npz").exists()


@pytest.mark.parametrize("family", sorted(set(STATES) - {"bn_linear", "repmlp"}))
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_family_is_within_its_certificate(family, dtype):
    tensors = state(STATES[family], "m.")
    for block in recognise(tensors, family, eps=1e-5, stride=1, identity=True).blocks:
        folded = fold(block, tensors, dtype)
        certificate = certify(block, tensors, folded.weight, folded.bias)
        assert certificate.held, (block, certificate)
        assert folded.rounding == EXACTLY
        worse = np.array(folded.weight)
        place = np.unravel_index(np.abs(worse).argmax(), worse.shape)
        # float64 arithmetic does not tell two ulps of float64; a thousand times the bound of the whole block it must
        worse[place] += 1e3 * certificate.bound if dtype == np.float64 else 2 * np.spacing(worse[place])
        assert certify(block, tensors, worse, folded.bias).wrong == 1


@pytest.mark.parametrize("family", ["repvgg", "rvsr", "dbb"])
def test_evaluation_branch_by_branch_against_the_naive_interpreter(family, monkeypatch):
    from npreparam.checkpoints import certificate
    tensors = state(STATES[family], "m.")
    block, = recognise(tensors, family, eps=1e-5, stride=1, identity=True).blocks
    folded = fold(block, tensors)
    ours = certify(block, tensors, folded.weight, folded.bias)
    monkeypatch.setattr(certificate, "evaluate", naive.evaluate)
    theirs = certify(block, tensors, folded.weight, folded.bias)
    assert abs(ours.measured - theirs.measured) <= 2 * ours.evaluation


def pair_state(shape, channels, seed=0):
    """A convolution and the batch norm after it, in a Sequential."""
    rng = np.random.default_rng(seed)
    norm = {name: rng.uniform(0.5, 1.5, channels) for name in ("weight", "bias", "running_mean", "running_var")}
    return {"0.weight": rng.standard_normal(shape)} | {f"1.{name}": value for name, value in norm.items()}


@pytest.mark.parametrize(("shape", "channels", "transposed"), [((4, 3), 4, ()), ((4, 3, 5), 4, ()), ((4, 3, 2, 3), 4, ()), ((4, 2, 2, 2, 2), 4, ()),
                                                               ((4, 6, 3, 3), 6, ("0",)), ((4, 3, 3, 2), 6, ("0",)), ((3, 4, 5), 4, ("0",))])
def test_linear_layers_signals_volumes_and_transposed_convolutions(shape, channels, transposed):
    tensors = {name: value.astype(np.float32) for name, value in pair_state(shape, channels).items()}
    block, = recognise(tensors, eps=1e-5, stride=1, transposed=transposed).blocks
    folded = fold(block, tensors)
    certificate = certify(block, tensors, folded.weight, folded.bias)
    assert folded.weight.shape == shape
    assert folded.bias.shape == (channels,)
    assert certificate.held
    assert (certificate.measured is None) == (len(shape) == 5)


def test_bfloat16_is_rounded_once(small):
    pytest.importorskip("ml_dtypes")
    out = small.with_name("out.safetensors")
    assert run("fuse", small, out, "--family", "repvgg", "--dtype", "bfloat16", "--report", small.with_name("r.json")).exit_code == 0
    row, = json.loads(small.with_name("r.json").read_text())["blocks"]
    assert (row["dtype"], row["rounding"]) == ("bfloat16", "float64, then rounded once")
    assert run("verify", small, out, "--family", "repvgg").exit_code == 0


def test_initializers_of_onnx_graphs(tmp_path):
    """A graph is no bag of tensors: an eps that its nodes tell must not be asked for, and a wrong one certified."""
    source, out = real("rfb320_conv_bn.onnx"), tmp_path / "out.safetensors"
    result = run("fuse", source, out, "--eps", "1e-3", "--stride", "1", "--transposed", "")
    assert one_line(result)
    assert "name an .onnx file" in result.output
    assert not out.exists()
    save(out, {"a": np.zeros(1)})
    assert one_line(run("verify", source, out))


def test_the_measurement_catches_a_wrong_algebra(monkeypatch):
    """Parameters that the reading itself gets wrong agree with it; only the branches tell."""
    from npreparam.checkpoints import certificate
    tensors = state(STATES["repvgg"], "m.")
    block, = recognise(tensors, "repvgg", eps=1e-5, stride=1).blocks
    folded = fold(block, tensors)
    monkeypatch.setattr(certificate, "evaluate", lambda *arguments: naive.evaluate(*arguments) + 1e-9)
    found = certify(block, tensors, folded.weight, folded.bias)
    assert found.wrong == 0
    assert not found.held


def test_rvsr_against_its_authors_fusion():
    """They fuse in float32: after k roundings within 2*k*2**-24 of the sum of the magnitudes of its terms."""
    theirs, ours = load(real("rvsr_fused_by_authors.pth")), load(real("rvsr_multibranch.ckpt"))
    blocks = recognise(ours).blocks
    for block in blocks:
        folded, sizes = fold(block, ours), Reader(block.expression, ours)(Magnitudes(0.0))
        name = block.fused.removeprefix("network.")
        relative = 2 * sizes.roundings * 2.0**-24
        assert (np.abs(folded.weight - theirs[f"{name}.weight"]) <= relative * kernel_of(sizes)[0]).all()
        assert (np.abs(folded.bias - theirs[f"{name}.bias"]) <= relative * sizes.bias).all()
    assert len(blocks) == 9
