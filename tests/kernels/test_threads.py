"""The thread pool and its working memory: an error anywhere reaches the caller, nobody hangs, nothing is lent twice."""

import itertools
import os
import queue
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

from npreparam import ArgumentError, Window, certified, ops
from npreparam.kernels import _atomic, _correlate, _plan, _reduce, _split, _threads, matmul, optim
from npreparam.kernels._atomic import await_stage, close, draw, enter, finish, new_counters, wait_awake
from npreparam.kernels._memory import strided
from npreparam.kernels._scratch import KEPT_BYTES, scratch

CHUNKS = 40
FLOAT = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def _four_threads(monkeypatch):
    monkeypatch.setattr(_threads._pool, "size", 4)


def failing(counters, side, raiser):
    """A kernel in two stages; one thread, the caller or a helper, fails at its first chunk without reporting it as done."""
    for stage in range(2):
        while draw(counters, stage, side, CHUNKS) >= 0:
            if threading.current_thread().name.startswith("npreparam") == (raiser == "helper"):
                raise MemoryError(raiser)
            time.sleep(0.001)  # leaves chunks for the others
            finish(counters, stage)
        await_stage(counters, stage, CHUNKS)


@pytest.mark.parametrize("raiser", ["caller", "helper"])
def test_an_error_of_any_thread_is_raised_and_nobody_hangs(raiser):
    with pytest.raises(MemoryError, match=raiser):
        _threads.run_together(failing, new_counters(2), close, raiser, threads=4)
    helpers = [thread for thread in threading.enumerate() if thread.name.startswith("npreparam")]
    assert len(helpers) >= 3  # still alive, and at work again:
    x = np.ones((2, 64, 40, 40), np.float32)
    assert (ops.conv2d(x, np.ones((64, 64, 1, 1), np.float32)) == 64).all()


@pytest.mark.parametrize("sides", [(0,), (1,), (0, 1), (0, 0, 1, 1, 1)])
def test_every_chunk_is_drawn_once_whatever_the_sides(sides):
    for chunks in range(7):
        counters, drawn = new_counters(2), []
        for turn in range(3 * chunks + 3):
            drawn.append(draw(counters, 1, sides[turn % len(sides)], chunks))
        assert sorted(chunk for chunk in drawn if chunk >= 0) == list(range(chunks))
        assert drawn[chunks:] == [-1] * len(drawn[chunks:])


def test_closed_counters_end_a_kernel_before_it_writes():
    x, w = np.ones((3, 2, 40, 40), np.float32), np.ones((5, 2, 3, 3), np.float32)
    source, plan = _plan.forward(x.shape, w.shape, Window.of(3), 4)
    y, small = np.full(3 * 5 * 38 * 38, 7, np.float32), np.zeros(0, np.float32)
    packed, padded = np.full(plan.tile_rows * plan.offsets.size, 7, np.float32), np.full(2 * (plan.held + plan.width), 7, np.float32)
    tiles = np.full(4 * plan.tile_rows * plan.width, 7, np.float32)
    operands = _correlate.Operands(strided(w), packed, strided(x), source, padded, tiles, small, np.float32(0), y)
    counters = new_counters(3)
    close(counters)
    for worker, together in itertools.product((0, 1), (0, 3)):
        _correlate.work(counters, worker, _split.Split(3 * plan.strips, 1, plan.held + plan.width, together * plan.strips), plan, operands)
    for memory in (y, packed, padded, tiles):  # a helper that wakes late finds memory that is lent to another call by now
        assert (memory == 7).all()


def allocated(kernel, *args):
    """How often a kernel takes memory; Numba itself does once for each array that is handed over, under the interpreter lock."""
    def arrays(value):
        return sum(map(arrays, value)) if isinstance(value, tuple) else isinstance(value, np.ndarray)

    kernel(*args)  # compiled
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats().alloc
    kernel(*args)
    return rtsys.get_allocation_stats().alloc - before - arrays(args)


def test_helpers_take_no_memory(monkeypatch):
    """One that wakes late would take it while its caller goes on: stopping `tracemalloc` then ends the process (cpython#128679)."""
    found = []

    def counted(kernel, counters, release, *args, threads):
        found.append(allocated(kernel, counters, 0, *args))
        found.append(allocated(kernel, counters, threads - 1, *args))  # late: all is done

    for module in (_correlate, _reduce, matmul):
        monkeypatch.setattr(module, "SMALL_PRODUCT", 0)
    monkeypatch.setattr(optim, "SMALL", 0)
    monkeypatch.setattr(_threads, "run_together", counted)
    for dtype in (np.float32, np.float64):
        x, w = np.ones((2, 6, 9, 9), dtype), np.ones((14, 6, 3, 3), dtype)
        y = ops.conv2d(x, w)
        ops.conv2d_input_grad(y, w, x.shape)
        ops.conv2d_weight_grad(y, x, w.shape)
        ops.conv2d(x, np.ones((6, 1, 3, 3), dtype), groups=6)
        ops.matmul(x[0, 0], x[0, 1])
        certified.conv2d(x, w)
        optim.adagrad([(np.ones(9, dtype),) * 3], optim.AdagradRates(dtype(1), dtype(1)))
    assert len(found) >= 28
    assert set(found) == {0}


def test_taking_memory_is_counted():
    @njit
    def take(x):
        return np.empty(x.size).size

    assert allocated(take, np.ones(3)) == 1


def test_a_helper_that_wakes_when_its_caller_has_gone_runs_nothing():
    errors, ran = _threads._Errors(lambda: None), []
    errors.help(ran.append, 1)
    errors.over = True
    errors.help(ran.append, 2)
    assert ran == [1]


def test_an_error_in_one_chunk_is_raised_after_the_others():
    seen = []

    def chunk(first, last):
        seen.append(first)
        if first == 0:
            raise MemoryError("chunk")

    with pytest.raises(MemoryError, match="chunk"):
        _threads.run(chunk, 64)
    assert len(seen) == 4 * _threads.CHUNKS_PER_THREAD


def test_fewer_threads_than_asked_for_do_the_work_as_well(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_threads, "_pool", _threads._Pool())
    monkeypatch.setattr(_threads._pool, "size", 4)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    x = np.ones((2, 64, 40, 40), np.float32)
    assert (ops.conv2d(x, np.ones((64, 64, 1, 1), np.float32)) == 64).all()
    assert _threads._pool.helpers == 0


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "", "\u00b2"])
def test_a_bad_thread_count_in_the_environment_is_named(value, monkeypatch):
    monkeypatch.setenv("NPREPARAM_NUM_THREADS", value)
    with pytest.raises(ArgumentError, match=r"`NPREPARAM_NUM_THREADS` .* must be a positive integer"):
        _threads._default_threads()


def test_the_environment_sets_the_thread_count(monkeypatch):
    monkeypatch.setenv("NPREPARAM_NUM_THREADS", "3")
    assert _threads._default_threads() == 3


def test_a_lent_buffer_is_lent_to_nobody_else():
    with scratch(FLOAT, test=100) as (outer,), scratch(FLOAT, test=100) as (inner,):
        assert not np.shares_memory(outer, inner)
    with scratch(FLOAT, test=100) as (again,):
        assert np.shares_memory(again, outer)  # and given back at the end
        assert again.ctypes.data % 64 == 0


def test_a_buffer_is_not_lent_again_after_an_error_nor_kept_when_large():
    with pytest.raises(KeyboardInterrupt), scratch(FLOAT, failed=100) as (lost,):
        raise KeyboardInterrupt
    with scratch(FLOAT, failed=100) as (other,):
        assert not np.shares_memory(other, lost)
    with scratch(FLOAT, large=KEPT_BYTES) as (large,):
        pass
    with scratch(FLOAT, large=100) as (small,):
        assert not np.shares_memory(small, large)


COUNT_HITS = """
import numpy as np
from npreparam import ops
from npreparam.kernels import pool
ops.avg_pool2d(np.ones((1, 1, 2, 2)), 2)
print(sum(pool.average_planes.stats.cache_hits.values()))
"""


def test_a_change_of_any_file_of_the_storey_discards_cached_kernels(tmp_path):
    import shutil
    from pathlib import Path

    import npreparam

    shutil.copytree(Path(npreparam.__file__).parent, tmp_path / "npreparam", ignore=shutil.ignore_patterns("__pycache__"))

    def hits():
        environment = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PATH": ""}
        run = subprocess.run([sys.executable, "-c", COUNT_HITS], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert [hits(), hits()] == [0, 1]
    with (tmp_path / "npreparam" / "_shapes.py").open("a") as shapes:
        shapes.write("# a change\n")
    assert [hits(), hits()] == [0, 1]


class Watched:
    """A queue that tells how it was asked, and when somebody sleeps on it."""

    def __init__(self):
        self.jobs, self.asked, self.sleeping = queue.SimpleQueue(), [], threading.Event()
        self.put = self.jobs.put

    def get_nowait(self):
        self.asked.append("looks")
        return self.jobs.get_nowait()

    def get(self):
        self.asked.append("sleeps")
        self.sleeping.set()
        return self.jobs.get()


def served(jobs):
    """A helper that begins with a job in its queue; what it did until it had it, and whether it sleeps when nothing more comes."""
    done = threading.Event()
    jobs.put(lambda: [jobs.asked.append("works"), done.set()])
    threading.Thread(target=_threads._Pool._serve, args=(jobs,), daemon=True).start()
    assert done.wait(10)
    before = jobs.asked[: jobs.asked.index("works")]
    return before, jobs.sleeping.wait(10)


def test_a_helper_kept_awake_takes_a_job_without_sleeping_and_sleeps_when_none_comes():
    with _threads.awake(), _threads.awake():
        assert served(Watched()) == (["looks"], True)
    assert _threads._pool.awake == 0
    assert served(Watched()) == (["sleeps"], True)


def test_results_do_not_depend_on_helpers_being_awake():
    x, w = np.ones((2, 64, 40, 40), np.float32), np.ones((64, 64, 1, 1), np.float32)
    with _threads.awake():
        for pause in (0, 0, 0.05, 0):
            time.sleep(pause)
            assert (ops.conv2d(x, w) == 64).all()
            assert (ops.matmul(np.ones((200, 300)), np.ones((300, 100))) == 300).all()
    assert (ops.conv2d(x, w) == 64).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is needed")
def test_a_forked_child_keeps_nobody_awake():
    read, write = os.pipe()
    with _threads.awake(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of a fork with threads; that is what is tested
        child = os.fork()
        if not child:
            os.write(write, bytes([_threads._pool.awake]))
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == bytes([0])
    os.close(read)
    os.close(write)


def test_an_error_within_awake_ends_it():
    with pytest.raises(KeyboardInterrupt), _threads.awake():
        raise KeyboardInterrupt
    assert _threads._pool.awake == 0


def test_waiting_awake_returns_a_job_or_gives_up(monkeypatch):
    jobs = queue.SimpleQueue()
    assert wait_awake(jobs) is None
    jobs.put("job")
    assert wait_awake(jobs) == "job"
    monkeypatch.setattr(_atomic, "await_entry", lambda entered, seen: jobs.put("late") or True)  # a kernel begins while it looks
    assert wait_awake(jobs) == "late"


def test_looking_ends_when_a_kernel_begins():
    seen = int(_atomic.ENTERED[0])
    assert not _atomic.await_entry(_atomic.ENTERED, seen)
    enter(new_counters(1), 1)  # a helper's side does not count
    assert int(_atomic.ENTERED[0]) == seen
    enter(new_counters(1), 0)
    assert _atomic.await_entry(_atomic.ENTERED, seen)
