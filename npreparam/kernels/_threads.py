"""The thread pool: the calling thread and a few sleeping helpers share the tasks of a `nogil` kernel.

Numba's own layers were not used: OpenMP threads go on spinning after a call and slow a user's next BLAS call down, and `workqueue`
aborts the process when two Python threads call it at once. Here helpers sleep on a queue, the caller takes its share, and a
helper that wakes late finds nothing left to do, so the caller never waits for a thread that has not begun.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from npreparam._errors import ArgumentError
from npreparam._shapes import as_int

CHUNKS_PER_THREAD = 4  # enough that a thread that was interrupted does not hold up the others

Work = Callable[[], None]


def _default_threads() -> int:
    wanted = os.environ.get("NPREPARAM_NUM_THREADS")
    if wanted is not None:
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) > 0):
            raise ArgumentError(f"`NPREPARAM_NUM_THREADS` (={wanted!r}, an environment variable) must be a positive integer; correct it or unset it")
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    def __init__(self) -> None:
        self.size = _default_threads()
        self.reset()

    def reset(self) -> None:
        """Forget the helpers: a forked child inherits none of them, nor whom they stay awake for, and the lock may be held by a lost thread."""
        self.lock, self.helpers, self.awake, self.jobs = threading.Lock(), 0, 0, queue.SimpleQueue[Work]()

    def submit(self, jobs: Sequence[Work]) -> None:
        """Have these jobs, which must not raise, run by helpers beside the caller; fewer where there are fewer helpers."""
        if self.helpers < len(jobs):
            with self.lock:
                self._start(len(jobs))
        for job in jobs[: self.helpers]:
            self.jobs.put(job)

    def _start(self, helpers: int) -> None:
        try:
            for number in range(self.helpers, helpers):
                threading.Thread(target=self._serve, args=(self.jobs,), name=f"npreparam-{number}", daemon=True).start()
                self.helpers += 1
        except RuntimeError:  # the system gives no more threads, or the interpreter is shutting down: fewer do the work as well
            pass

    @staticmethod
    def _serve(jobs: queue.SimpleQueue[Work]) -> None:
        while True:
            work = _wait_awake(jobs) if _pool.awake else None
            work = jobs.get() if work is None else work
            work()
            del work  # a sleeping helper must not keep the arrays of the last call alive


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.reset)


def _wait_awake(jobs: queue.SimpleQueue[Work]) -> Work | None:
    from npreparam.kernels._atomic import wait_awake  # with a kernel in it, which this module must not load

    return wait_awake(jobs)


@contextmanager
def awake() -> Iterator[None]:
    """Within the block, helpers wait for the next call for about a millisecond before they sleep.

    For loops of many short calls, where waking a thread takes as long as its share of the work. Otherwise no thread spins after a call.
    """
    with _pool.lock:
        _pool.awake += 1
    try:
        yield
    finally:
        with _pool.lock:
            _pool.awake = max(0, _pool.awake - 1)  # 0 in a child forked within the block


def get_num_threads() -> int:
    """Number of threads a kernel may use: the CPUs this process may run on, or NPREPARAM_NUM_THREADS.

    >>> get_num_threads() >= 1
    True
    """
    return _pool.size


def set_num_threads(threads: int) -> None:
    """Set the number of threads a kernel may use; results do not depend on it, bit for bit.

    Raises ArgumentError unless `threads` is a positive integer.

    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    _pool.size = as_int(threads, "threads", 1)


class _Errors:
    """What the threads of one call raised; the first error is the call's."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.first: BaseException | None = None
        self.release = release  # lets the other threads go
        self.over = False  # the caller has returned

    def guard(self, kernel: Callable[..., None], *args: Any) -> None:
        try:
            kernel(*args)
        except BaseException as error:
            self.first = self.first or error
            self.release()

    def help(self, kernel: Callable[..., None], *args: Any) -> None:
        """`guard`, unless the caller has gone: a helper that wakes so late finds nothing left to do."""
        if not self.over:
            self.guard(kernel, *args)

    def raise_first(self) -> None:
        if self.first is not None:
            raise self.first


def run_together(kernel: Callable[..., None], counters: Any, release: Callable[[Any], None], *args: Any, threads: int) -> None:
    """Call ``kernel(counters, worker, *args)`` here and on helpers at once; it shares its tasks out by counters and returns when all are done.

    `worker` is 0 for the caller and below `threads` for all. If one thread raises, ``release(counters)`` makes the others return, and the
    error is raised here.
    """
    if threads == 1:
        counters[-1] = 0  # no helper need look up: it would hold the interpreter lock just when the caller wants it back
        kernel(counters, 0, *args)
        return
    errors = _Errors(partial(release, counters))
    _pool.submit([partial(errors.help, kernel, counters, worker, *args) for worker in range(1, threads)])
    errors.guard(kernel, counters, 0, *args)
    errors.over = True
    errors.raise_first()


class _Job:
    """One kernel call cut into chunks: threads draw chunk numbers from one counter until none is left."""

    def __init__(self, kernel: Callable[..., None], tasks: int, chunks: int, args: tuple[Any, ...]) -> None:
        self.kernel, self.tasks, self.chunks, self.args = kernel, tasks, chunks, args
        self.counter = itertools.count()  # next() is atomic under the interpreter lock
        self.lock, self.left, self.done = threading.Lock(), chunks, threading.Event()
        self.errors = _Errors(lambda: None)

    def work(self) -> None:
        while (chunk := next(self.counter)) < self.chunks:
            first, last = chunk * self.tasks // self.chunks, (chunk + 1) * self.tasks // self.chunks
            self.errors.guard(self.kernel, first, last, *self.args)
            with self.lock:
                self.left -= 1
                if not self.left:
                    self.done.set()


def run(kernel: Callable[..., None], tasks: int, *args: Any, small: bool = False) -> None:
    """Call ``kernel(first, last, *args)`` over ``range(tasks)`` in contiguous pieces, on several threads unless `small`."""
    threads = 1 if small else min(_pool.size, tasks)
    if threads <= 1:
        if tasks:
            kernel(0, tasks, *args)
        return
    job = _Job(kernel, tasks, min(tasks, threads * CHUNKS_PER_THREAD), args)
    _pool.submit([job.work] * (threads - 1))
    job.work()
    job.done.wait()
    job.errors.raise_first()
