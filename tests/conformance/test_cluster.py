"""A sweep on a real local Dask cluster of processes: the same verdicts as here, with every worker alive or one killed in the middle."""

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from npreparam._errors import ArgumentError
from npreparam.cli.app import app
from npreparam.conformance import cluster
from npreparam.conformance.case import Level
from npreparam.conformance.report import as_json, record
from npreparam.conformance.sweep import Job, Plan, run

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # what Dask and its event loop warn of is theirs

TARGET = str(Path(__file__).parent / "dask_target.py")
OPS = ("tanh", "sigmoid")


@contextmanager
def local_cluster(**environment):
    """Two worker processes that are replaced when they die."""
    settings = {"distributed.nanny.environ": {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environment},
                "distributed.comm.timeouts.connect": "10s", "distributed.scheduler.allowed-failures": 1}
    with dask.config.set(settings), distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                                                             host="127.0.0.1", protocol="tcp") as found:
        yield found


def report(job, sweep):
    return as_json(record(job, job.runner().declaration, sweep, {}))


def swept(**options):
    job = Job(TARGET)
    sweep = run(job, Plan(OPS, ["float32"], rounds=1), **options)
    return sweep, report(job, sweep)


@pytest.fixture(scope="module")
def alone():
    return swept()


def test_the_report_is_the_same_though_a_worker_is_killed_in_the_middle(alone, tmp_path):
    """Once from outside; once by a case that kills its process the first time it is judged."""
    killed = []
    with local_cluster(NPREPARAM_TEST_DIE=str(tmp_path / "died")) as found, cluster.connected(found.scheduler_address) as executor, \
            distributed.Client(found, set_as_default=False) as client:
        workers = list(client.run(os.getpid).values())  # before any of them dies by itself

        def kill_one(sweep, planned):
            while workers and not killed:
                with suppress(ProcessLookupError):
                    os.kill(workers[0], signal.SIGKILL)
                    killed.append(workers[0])
                del workers[0]

        sweep, text = swept(executor=executor, step=kill_one)
    assert (tmp_path / "died").exists()
    assert killed
    assert text == alone[1]
    assert list(sweep.verdicts) == list(alone[0].verdicts)


def test_cases_that_always_lose_their_worker_are_reported_and_only_they(alone):
    with local_cluster(NPREPARAM_TEST_DIE="always") as found, cluster.connected(found.scheduler_address) as executor:
        sweep, _ = swept(executor=executor)
    lost = {key for key, verdict in sweep.verdicts.items() if verdict.level is Level.CRASH}
    assert len(lost) == 1
    assert all("lost" in sweep.verdicts[key].explanation for key in lost)
    assert {key: repr(verdict) for key, verdict in sweep.verdicts.items() if key not in lost} == \
        {key: repr(verdict) for key, verdict in alone[0].verdicts.items() if key not in lost}


def test_the_command_judges_on_the_cluster_if_npreparam_is_the_same_there(tmp_path, monkeypatch):
    with local_cluster() as found:
        options = ["judge", TARGET, "--ops", "sigmoid", "--dtypes", "float32", "--rounds", "1"]
        there = CliRunner().invoke(app, [*options, "--json", str(tmp_path / "there.json"), "--scheduler", found.scheduler_address])
        here = CliRunner().invoke(app, [*options, "--json", str(tmp_path / "here.json")])
        monkeypatch.setattr(cluster, "__version__", "0.0.0")
        with pytest.raises(ArgumentError, match=r"must be 0\.0\.0 on every worker"), cluster.connected(found.scheduler_address):
            pass
    assert there.exit_code == here.exit_code, there.output
    assert (tmp_path / "there.json").read_text() == (tmp_path / "here.json").read_text()


def test_a_scheduler_that_is_not_there_is_named():
    with pytest.raises(ArgumentError, match=r"`scheduler` \(='tcp://127.0.0.1:1'\) cannot be reached"), cluster.connected("tcp://127.0.0.1:1", 1):
        pass


@pytest.mark.parametrize("address", ["nonsense", "ftp://x:1"])
def test_an_address_that_is_none_is_named(address):
    with pytest.raises(ArgumentError, match="cannot be reached"), cluster.connected(address, 1):
        pass
