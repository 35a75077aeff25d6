"""Promises of the package as a whole: import rules, what importing loads, the README's commands, and the run without a compiler."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command; lint_imports_command()"
HEAVY = ("hypothesis", "jax", "matplotlib", "numba", "onnx", "rich", "sklearn", "torch", "typer")


def run(*command, **environment):
    return subprocess.run([sys.executable, *command], cwd=environment.pop("cwd", ROOT), env=os.environ | environment, capture_output=True, text=True,
                          timeout=600, check=False)


def loaded_by(statement):
    """Which of the heavy packages a statement loads in a new process."""
    done = run("-c", f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("module", ["", ".ops", ".tape", ".nn", ".fuse", ".exact", ".certified", ".certified.bounds", ".models", ".prob",
                                    ".checkpoints"])
def test_importing_loads_nothing_heavy(module):
    assert loaded_by(f"import npreparam{module}") == []


def test_the_import_test_can_fail():
    """The test tested: a first convolution does load Numba, and it would be seen."""
    assert "numba" in loaded_by("import numpy as np\nfrom npreparam import ops\nops.conv2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)))")


def test_import_contracts_hold():
    pytest.importorskip("importlinter")
    done = run("-c", LINT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_import_contracts_can_fail(tmp_path):
    """A kernel that imports exact must break the storeys."""
    pytest.importorskip("importlinter")
    shutil.copytree(ROOT / "npreparam", tmp_path / "npreparam", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    with (tmp_path / "npreparam/kernels/_cpu.py").open("a") as file:
        file.write("from npreparam.exact import conv2d\n")
    done = run("-c", LINT, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "BROKEN" in done.stdout


def test_kernels_run_as_plain_python():
    """The selection marked `interpreted`, with Numba's compiler off: the intrinsics' Python twins give the same results."""
    done = run("-m", "pytest", "-m", "interpreted", "-p", "no:cacheprovider", "tests/ops", "tests/kernels", NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.mark.interpreted
def test_this_process_runs_what_it_claims_to_run():
    """Compiled kernels are dispatchers; with the compiler off they are functions."""
    from types import FunctionType

    from npreparam.kernels._correlate import correlate
    assert isinstance(correlate, FunctionType) == (os.environ.get("NUMBA_DISABLE_JIT") == "1")


def test_generic_code_gives_the_same_bits(tmp_path):
    """Without AVX, one vector instruction is many, and the tile is smaller: not one bit changes."""
    script = ("import numpy as np, sys\nfrom npreparam import ops\nrng = np.random.default_rng(0)\n"
              "for dtype in (np.float32, np.float64):\n"
              "    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((2, 4, 9, 11), (14, 2, 3, 3), 14))\n"
              "    y = ops.conv2d(x, w, b, 2, 1, 1, 2)\n"
              "    print(y.tobytes().hex(), ops.conv2d_input_grad(y, w, x.shape, 2, 1, 1, 2).tobytes().hex(),"
              " ops.conv2d_weight_grad(y, x, w.shape, 2, 1, 1, 2).tobytes().hex())")
    native, generic = run("-c", script), run("-c", script, NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=str(tmp_path))
    assert native.returncode == generic.returncode == 0, generic.stderr
    assert native.stdout == generic.stdout
    assert len(native.stdout) > 1000


def test_the_readme_has_two_set_up_commands():
    text = (ROOT / "README.md").read_text()
    assert text.count("pip install") - text.count("'npreparam[") == 2
    assert "python -m npreparam tour" in text
    assert "python -m pytest" in text


def test_the_readme_shows_what_its_commands_print(tmp_path):
    pytest.importorskip("typer")
    text = (ROOT / "README.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1].replace('"block', f'"{tmp_path}/block'), {})
    shown = re.search(r"<!-- checked by a test -->\n```console\n(.*?)```", text, re.DOTALL)[1]
    printed = ""
    for command in re.findall(r"^\$ npreparam (.*)$", shown, re.MULTILINE):
        done = subprocess.run([sys.executable, "-m", "npreparam", *command.split()], cwd=tmp_path, capture_output=True, text=True, check=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"})
        printed += f"$ npreparam {command}\n{done.stdout}"
    assert printed == shown


def test_the_readme_s_code_runs_in_order_and_ends_with_the_errors_it_announces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, outcomes = {}, []
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        try:
            exec(block, names)
            outcomes.append(None)
        except Exception as error:
            outcomes.append(type(error).__name__)
    assert outcomes == [None, None, None, "UnusedInputError"]
    assert (names["error"] <= names["bounds"].conv2d_bound(names["x"], names["w"], padding=1)).all()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_front_pages_lead_to_files(name):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text())
    assert [link for link in links if not (ROOT / link).is_file()] == []
    if name == "README.md":  # every page is one click away
        assert {f"docs/pages/{page.name}" for page in (ROOT / "docs/pages").glob("*.md")} - {"docs/pages/live.md"} <= set(links)
