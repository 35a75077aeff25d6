"""A small share of benchmarks/fuzz_checkpoints.py, and proof that the fuzzer sees what it should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import FormatError
from npreparam.checkpoints import load
from tests.checkpoints.build import DATA, archive, dict_of, legacy, program, tensor, zipped
from tests.checkpoints.fuzz import fuzz


def test_damaged_files_are_read_or_refused(tmp_path):
    faults, outcomes = fuzz(tmp_path, 3000, seed=1)
    assert faults == []
    assert min(outcomes.values()) > 100


def test_the_fuzzer_sees_another_exception(tmp_path):
    """Planted fault: a reader that trusts its input."""
    def careless(path):
        try:
            return load(path)
        except FormatError as error:
            raise KeyError("lost") from error
    faults, _ = fuzz(tmp_path, 50, seed=1, read=careless)
    assert any("KeyError" in what for _, _, what in faults)


OPCODES = st.sampled_from([b"(", b"0", b"1", b"2", b"N", b"]", b"}", b")", b"t", b"l", b"d", b"a", b"e", b"s", b"u", b"R", b"o", b"b", b"Q", b"\x81",
                           b"\x85", b"\x86", b"\x87", b"\x88", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94", b"h\x00", b"h\x01", b"q\x00", b"q\x01",
                           b"K\x03", b"J\xff\xff\xff\xff", b"X\x01\x00\x00\x00a", b"C\x02ab", b"ccollections\nOrderedDict\n", b"cos\nsystem\n",
                           b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"ctorch\nSize\n", b"c_codecs\nencode\n",
                           b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"I01\n", b"F0.5\n", b"S'x'\n", b"P0\n", tensor()])


@pytest.mark.parametrize("writer", ["zip", "legacy"])
@given(opcodes=st.lists(OPCODES, max_size=30))
def test_programs_of_random_opcodes(tmp_path_factory, writer, opcodes):
    """Well-formed opcodes in senseless orders get further than damaged bytes do."""
    body = b"".join(opcodes)
    path = tmp_path_factory.mktemp("fuzz") / "model.pth"
    path.write_bytes(zipped({"a/data.pkl": program(body), "a/data/0": DATA}) if writer == "zip" else legacy(body))
    try:
        load(path)
    except FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_good_files_pass_the_fuzzer_s_reader(tmp_path):
    (tmp_path / "model.pth").write_bytes(archive(dict_of(w=tensor())))
    assert load(tmp_path / "model.pth")["w"].size == 6
