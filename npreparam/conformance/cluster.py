"""A Dask cluster as an executor: `sweep.run(job, executor=...)` spreads its cases over it (extra `dask`).

A sweep is a list of independent seeded cases, so its verdicts do not depend on where they were reached. The cases of a worker that is lost
travel to another; those that lose it again are judged once more, each alone, and reported as CRASH if even then there is no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from npreparam import __version__
from npreparam._errors import ArgumentError

CONNECT_SECONDS = 15
START = "start one with `dask scheduler`, and workers with `dask worker ADDRESS`"


@contextmanager
def connected(scheduler: str, seconds: float = CONNECT_SECONDS) -> Iterator[Executor]:
    """An executor on the workers of a Dask scheduler, such as "tcp://10.0.0.1:8786"; given back at the end.

    Raises ImportError (no Dask), ArgumentError (no scheduler there, no workers, or another npreparam than here on one of them).
    """
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("--scheduler needs Dask: pip install 'npreparam[dask]'") from None
    try:
        client = Client(scheduler, timeout=seconds, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # a time-out is an OSError
        reason = str(error).partition("\n")[0]
        raise ArgumentError(f"`scheduler` (={scheduler!r}) cannot be reached: {reason or type(error).__name__}; {START}") from None
    with client:
        versions = client.run(_version)
        if not versions:
            raise ArgumentError(f"`scheduler` (={scheduler!r}) has no workers; {START}")
        others = {address: version for address, version in versions.items() if version != __version__}
        if others:
            told = ", ".join(f"{address} has {version}" for address, version in others.items())
            raise ArgumentError(f"`scheduler` (={scheduler!r}): npreparam must be {__version__} on every worker, as it is here, but {told}")
        yield client.get_executor(pure=False)


def _version() -> str:
    """The npreparam of a worker."""
    from npreparam import __version__ as found

    return found
