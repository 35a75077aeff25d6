"""Files that are written whole or not at all, by several threads too."""

import os
import threading

import numpy as np
import pytest

from npreparam.checkpoints import load, save
from tests.checkpoints.build import NUMBERS


def test_two_threads_may_save_to_one_path(tmp_path):
    """Whoever is last is whole; nobody removes another's temporary file."""
    path, begun, errors = tmp_path / "x.npz", threading.Barrier(2), []

    def saved(value):
        try:
            begun.wait()
            for _ in range(20):
                save(path, {"a": np.full(1000, value)})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=saved, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(load(path)["a"].tolist())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_saving_never_leaves_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save(path, {"w": NUMBERS})
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        save(path, {"w": 2 * NUMBERS})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]
