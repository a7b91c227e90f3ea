"""Rows in memory refuse what a database would, and hold live and finished jobs apart."""

from __future__ import annotations

import pytest

from broker.dispatch.rows import Writes
from tests.broker.dispatch.bench import GroupBench


def test_stored_job_moves_to_the_finished_when_it_ends(group: GroupBench) -> None:
    group.agents("a").submit("j1")
    key = group.row("j1").job_key
    assert (key in group.stored.jobs, key in group.stored.finished) == (True, False)
    group.finish("j1")
    assert (key in group.stored.jobs, key in group.stored.finished) == (False, True)


def test_stored_refuses_a_job_that_is_inserted_twice(group: GroupBench) -> None:
    row = group.submit("j1").row("j1")
    with pytest.raises(AssertionError, match="inserted twice"):
        group.stored.apply(Writes(inserts=[row]))


def test_stored_refuses_a_label_set_that_is_written_twice(group: GroupBench) -> None:
    label_set = group.submit("j1").last.writes.label_sets[0]
    with pytest.raises(AssertionError, match="written twice"):
        group.stored.apply(Writes(label_sets=[label_set]))


def test_stored_refuses_an_update_of_a_finished_job(group: GroupBench) -> None:
    group.agents("a").submit("j1").finish("j1")
    with pytest.raises(KeyError):
        group.stored.apply(Writes(updates=group.last.writes.updates))
