"""The pytest plugin: `pytest --pyargs npreparam.conformance --target mod:attr`, and the fixture `certified`.

It is loaded with every run of pytest, so it imports nothing until it is used.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `pytest --pyargs npreparam.conformance`."""
    group = parser.getgroup("npreparam", "npreparam: an implementation on trial")
    group.addoption("--target", metavar="TARGET", help="what to judge: a built-in adapter, module, module:attribute or file.py:attribute")
    group.addoption("--target-profile", metavar="NAME", help="arithmetic to judge by, for the declared one: float32, tf32, ...")
    group.addoption("--target-rounds", type=int, default=1, metavar="N", help="rounds of cases (default: 1)")
    group.addoption("--target-seed", type=int, default=0, metavar="N", help="seed of all cases (default: 0)")


@pytest.fixture(scope="session")
def certified() -> SimpleNamespace:
    """The certified functions, `bounds`, and `assert_conforms(actual, op, args, profile=None)`."""
    from npreparam import certified as functions
    from npreparam.certified import bounds
    from npreparam.conformance.assertions import assert_conforms

    return SimpleNamespace(**{name: getattr(functions, name) for name in functions.__all__}, bounds=bounds, assert_conforms=assert_conforms)


def trial_of(config: pytest.Config) -> Any:
    """The job that the options describe, or None without `--target`. Raises pytest.UsageError."""
    target = config.getoption("target", None)
    if target is None:
        return None
    from npreparam._errors import ArgumentError
    from npreparam.certified.bounds import profile_named
    from npreparam.conformance.sweep import Job

    name = config.getoption("target_profile")
    try:
        return Job(target, None if name is None else profile_named(name))
    except ArgumentError as error:
        raise pytest.UsageError(f"--target-profile: {error}") from None
