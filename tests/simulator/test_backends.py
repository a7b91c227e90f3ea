"""Replications on a real cluster of two worker processes are those of one process, and a cluster's faults are told."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from simulator import backends
from simulator.backends import BackendError, Dask, Loky, Ray, Serial, backend_named
from simulator.experiments import Laboratory, Plan, Question
from simulator.world import simulate
from tests.conftest import not_run
from tests.simulator.toys import ToyScenario, queue
from tests.simulator.worlds import scenario

TEN = list(range(10))


def fails_at_three(number: int) -> int:
    if number == 3:
        raise LookupError("three")
    return number


def dies_at_three(number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


def who(_: int) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def dask() -> Iterator[Dask]:
    with closing(Dask(2)) as started:
        yield started


# --- without a cluster ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("dask", "distributed", "cluster"), ("ray", "ray", "ray")], ids=["dask", "ray"]
)
def test_backend_names_the_extra_when_its_package_is_missing(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError, match=rf"`{package}` is not installed: .*pip install 'jobmesh\[{extra}\]'"):
        backend_named(name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("loky", 0, "tcp://127.0.0.1:1"), "say `--backend dask` or `--backend ray` with it"),
        (("dask", 2, "tcp://127.0.0.1:1"), "say one of the two"),
        (("lokky",), "there are serial, loky, dask, ray"),
    ],
    ids=["address", "both", "name"],
)
def test_backend_is_refused_when_its_options_contradict(arguments: tuple[str, int, str], says: str) -> None:
    with pytest.raises(BackendError, match=says):
        backend_named(*arguments)


@pytest.mark.slow
def test_loky_says_that_a_worker_died() -> None:
    with pytest.raises(BackendError, match="a worker process died"):
        list(Loky(2).play(dies_at_three, TEN))


# --- dask -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dask_plays_on_two_processes_what_one_plays_to_the_bit(dask: Dask) -> None:
    assert len(set(dask.play(who, TEN))) == dask.at_once == 2
    assert os.getpid() not in set(dask.play(who, TEN))
    question = Question(scenario(run="5 s", settle="1 s"), seed=5)
    spread, serial = (Laboratory(simulate, one).replicate(question, Plan(4)) for one in (dask, Serial()))
    assert spread.outcomes == serial.outcomes
    assert len({outcome.digest for outcome in serial.outcomes}) == 4


@pytest.mark.slow
def test_dask_uses_a_cluster_that_is_there_and_leaves_it(dask: Dask) -> None:
    with closing(Dask(scheduler=dask.address)) as guest:
        assert set(guest.play(who, TEN)) == set(dask.play(who, TEN))
    assert list(dask.play(fails_at_three, [1, 2])) == [1, 2]


@pytest.mark.slow
def test_dask_raises_what_a_task_raises_in_its_place_and_plays_on(dask: Dask) -> None:
    results = dask.play(fails_at_three, TEN)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="three"):
        next(results)
    first = dask.play(fails_at_three, [0, 1, 2])
    assert next(first) == 0
    first.close()
    assert list(dask.play(fails_at_three, [4, 5])) == [4, 5]


@pytest.mark.slow
def test_dask_refuses_workers_with_other_sources(dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "code_version", lambda: "of another day")
    with pytest.raises(BackendError, match="another simulator, Python or numpy"):
        list(dask.play(who, TEN))


@pytest.mark.slow
def test_dask_says_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "CONNECT_S", 0.2)
    with pytest.raises(BackendError, match="no Dask scheduler answers at tcp:"):
        Dask(scheduler="tcp://127.0.0.1:1")


@pytest.mark.slow
def test_interrupted_dask_series_keeps_what_it_has_and_its_workers_end(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    question = Question(ToyScenario(jobs=200, interrupt_parent_at=4, journal=str(journal)))
    with closing(Dask(2)) as dask:
        partial = Laboratory(queue, dask).replicate(question, Plan(8))
    assert partial.partial
    assert len(partial.outcomes) >= 2
    whole = Laboratory(queue).replicate(Question(ToyScenario(jobs=200)), Plan(len(partial.outcomes)))
    assert partial.outcomes == whole.outcomes
    workers = {int(line.split()[1]) for line in journal.read_text().splitlines()}
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists() and pid != os.getpid()]


@pytest.mark.slow
def test_dask_says_that_a_worker_died_and_waits_for_nobody(dask: Dask) -> None:
    with pytest.raises(BackendError, match="a worker process died"):
        list(dask.play(dies_at_three, TEN))


# --- ray ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    if find_spec("ray") is None:
        not_run("not installed: ray (make test-ray)")
    with closing(Ray(2)) as started:
        yield started


@pytest.mark.ray
def test_ray_plays_on_two_processes_what_one_plays_to_the_bit(ray: Ray) -> None:
    assert len(set(ray.play(who, TEN))) == ray.at_once == 2
    question = Question(scenario(run="5 s", settle="1 s"), seed=5)
    spread, serial = (Laboratory(simulate, one).replicate(question, Plan(5)) for one in (ray, Serial()))
    assert spread.outcomes == serial.outcomes


@pytest.mark.ray
def test_ray_raises_what_a_task_raises_and_plays_on(ray: Ray) -> None:
    results = ray.play(fails_at_three, TEN)
    assert [next(results) for _ in range(2)] == [0, 1]
    with pytest.raises(LookupError, match="three"):
        list(results)
    assert list(ray.play(fails_at_three, [4, 5, 6])) == [4, 5, 6]


@pytest.mark.ray
def test_ray_says_that_a_worker_died(ray: Ray) -> None:
    with pytest.raises(BackendError, match="a worker process died"):
        list(ray.play(dies_at_three, TEN))
    assert list(ray.play(fails_at_three, [4, 5, 6])) == [4, 5, 6]


@pytest.mark.ray
def test_interrupted_ray_series_keeps_what_it_has(ray: Ray) -> None:
    toy = ToyScenario(jobs=200, interrupt_parent_at=4, driver_pid=os.getpid())
    partial = Laboratory(queue, ray).replicate(Question(toy), Plan(8))
    assert partial.partial
    assert len(partial.outcomes) >= 2
