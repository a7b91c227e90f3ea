"""What operators may do is the table `ALLOWED`, cell by cell; and what follows by itself."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from broker.dispatch import reasons
from broker.dispatch.messages import RequestDone, RequestRefused
from broker.dispatch.model import Admin, JobState, Link, Phase
from broker.dispatch.operators import ALLOWED, DISABLE_NOW_US, INSTEAD, Action, allowed, is_running
from tests.broker.dispatch.bench import GroupBench

ADMINS = (Admin.ENABLED, Admin.DRAINING, Admin.PAUSED, Admin.DISABLED)
ACTS: dict[Action, Callable[[GroupBench], GroupBench]] = {
    Action.REMOVE: lambda group: group.remove("a"),
    Action.DRAIN: lambda group: group.drain("a"),
    Action.CANCEL_DRAIN: lambda group: group.cancel_drain("a"),
    Action.RESUME: lambda group: group.resume("a"),
    Action.DISABLE: lambda group: group.disable("a"),
    Action.DISABLE_NOW: lambda group: group.disable("a", now=True),
    Action.ENABLE: lambda group: group.enable("a"),
    Action.RANK: lambda group: group.rank("a", 3),
    Action.LABELS: lambda group: group.label("a", labels=["zone=north"]),
}
"""The actions that are events. Edits and logs are not: who carries them out asks `allowed`."""
LEADS_TO = {
    Action.DRAIN: Admin.DRAINING,
    Action.CANCEL_DRAIN: Admin.ENABLED,
    Action.RESUME: Admin.ENABLED,
    Action.DISABLE: Admin.DISABLED,
    Action.DISABLE_NOW: Admin.DISABLED,
    Action.ENABLE: Admin.ENABLED,
    Action.REMOVE: Admin.REMOVED,
}
CELLS = list(product(Action, ADMINS, (True, False)))


def standing(group: GroupBench, admin: Admin, *, running: bool) -> GroupBench:
    """Agent a with work (one job, exclusive, so that it is with the agent while that is away), in this standing."""
    group.agents("a")
    if admin is Admin.PAUSED:
        group.drain("a", ends="pause")
    else:
        group.submit("j1", exclusive=True).start("j1")
    if admin is Admin.DRAINING:
        group.drain("a")
    elif admin is Admin.DISABLED:
        group.disable("a")
    if not running:
        group.close("a")
    agent = group.agent("a")
    assert (agent.admin, is_running(agent)) == (admin, running)
    return group


@pytest.mark.parametrize(("action", "admin", "running"), CELLS, ids=str)
def test_operator_may_do_what_the_table_says(group: GroupBench, action: Action, admin: Admin, running: bool) -> None:
    standing(group, admin, running=running)
    agent = group.agent("a")
    is_allowed = (admin, running) in ALLOWED[action]
    assert allowed(action, agent) == is_allowed
    if action not in ACTS:
        return
    ACTS[action](group)
    (reply,) = group.last.replies
    if is_allowed:
        assert isinstance(reply, RequestDone)
        assert reply.state == LEADS_TO.get(action, admin)
    else:
        assert isinstance(reply, RequestRefused)
        assert reply.reason == reasons.AGENT_WRONG_STATE
        assert INSTEAD[action] in reply.text
        assert f"agent a is {'' if admin is Admin.ENABLED else f'{admin}, '}" in reply.text
        assert (agent.admin, is_running(agent)) == (admin, running)
        assert not group.last.writes
        assert not group.last.sends


def test_table_says_something_of_every_action() -> None:
    assert set(ALLOWED) == set(INSTEAD) == set(Action)
    assert set(ACTS) | {Action.EDIT, Action.LOGS} == set(Action)


def test_every_action_is_possible_in_some_standing_and_none_on_a_removed_agent() -> None:
    assert all(ALLOWED[action] for action in Action)
    assert not any(admin is Admin.REMOVED for cells in ALLOWED.values() for admin, _ in cells)


def test_suspect_agent_does_not_count_as_running(group: GroupBench) -> None:
    group.agents("a").mute("a").advance(7)
    assert group.agent("a").link is Link.SUSPECT
    assert group.drain("a").replies == [f"refused {reasons.AGENT_WRONG_STATE}"]


@pytest.mark.parametrize("action", sorted(ACTS))
def test_operator_is_refused_when_the_agent_is_unknown_by_now(group: GroupBench, action: Action) -> None:
    group.agents("a").close("a").remove("a")
    assert ACTS[action](group).replies == [f"refused {reasons.AGENT_UNKNOWN}"]


def test_drain_cannot_pause_an_agent_that_is_paused(group: GroupBench) -> None:
    standing(group, Admin.PAUSED, running=True)
    assert group.drain("a", ends="pause").replies == [f"refused {reasons.AGENT_WRONG_STATE}"]
    assert group.drain("a", ends="stop").replies == ["done draining"]


@pytest.mark.parametrize("then", ["requeue", "kill"])
def test_drain_without_a_deadline_lets_all_finish(group: GroupBench, then: str) -> None:
    group.agents("a").submit("j1").start("j1").drain("a", then=then).advance(600)
    assert group.phases == {"j1": Phase.ACCEPTED}
    group.finish("j1")
    assert group.states == {"j1": JobState.SUCCEEDED}
    assert group.agent("a").link is Link.STOPPED


@pytest.mark.parametrize(("then", "ends_as"), [("requeue", JobState.QUEUED), ("kill", JobState.FAILED)])
def test_deadline_of_a_drain_stops_what_runs(group: GroupBench, then: str, ends_as: JobState) -> None:
    group.agents("a").submit("j1").start("j1").drain("a", then=then, deadline_s=30).advance(29.9)
    assert group.phases == {"j1": Phase.ACCEPTED}
    group.advance(0.1)
    assert group.sends == [f"a: cancel j1#1, drain_{then}, grace 10 s"]
    assert group.agent("a").admin_due_us == 0
    group.stopped("j1")
    assert group.states == {"j1": ends_as}
    assert group.row("j1").failures == group.row("j1").crashes == group.row("j1").bounces == 0


def test_deadline_of_a_drain_that_finishes_does_nothing(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").drain("a", deadline_s=30).advance(60)
    assert group.phases == {"j1": Phase.ACCEPTED}
    assert group.agent("a").admin is Admin.DRAINING


def test_second_of_a_disabled_agent_ends_its_stream_confirmed_or_not(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1").start("j1").disable("a", now=True)
    assert group.agent("a").is_present
    group.advance(DISABLE_NOW_US / 1_000_000)
    assert not group.agent("a").is_present
    assert group.assigned == {"b": ["j1"]}
    assert group.agent("a").admin_due_us == 0


@pytest.mark.parametrize(
    ("make", "act", "instead"),
    [
        (
            lambda group: group.disable("a"),
            lambda group: group.resume("a"),
            "is disabled, not connected: only",
        ),
        (lambda group: group.disable("a"), lambda group: group.resume("a"), "; enable it instead"),
        (lambda group: group.drain("a", ends="pause"), lambda group: group.enable("a"), "; resume it instead"),
    ],
)
def test_refusal_names_the_act_that_was_meant(
    group: GroupBench, make: Callable[[GroupBench], object], act: Callable[[GroupBench], object], instead: str
) -> None:
    make(group.agents("a"))
    act(group)
    (reply,) = group.last.replies
    assert isinstance(reply, RequestRefused)
    assert instead in reply.text


def test_agent_that_was_sent_away_is_expected_back_once_it_is_enabled(group: GroupBench) -> None:
    group.agents("a").disable("a").enable("a")
    assert group.agent("a").link is Link.GONE


def test_deadline_that_was_taken_back_stops_nothing(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").drain("a", then="kill", deadline_s=30).cancel_drain("a").advance(60)
    assert group.phases == {"j1": Phase.ACCEPTED}


def test_enabled_again_in_its_last_second_the_agent_stays(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").disable("a", now=True).enable("a").advance(2)
    assert group.agent("a").is_present
    assert group.phases == {"j1": Phase.STOPPING}, "what was stopped stays stopped"


def test_settled_agent_is_left_alone_when_nobody_wants_anything_of_it(group: GroupBench) -> None:
    group.agents("a").submit("j1").finish("j1")
    assert group.agent("a").link is Link.LIVE
    assert group.dispatcher.ledger.unsettled == {}


def test_removed_agent_is_forgotten_when_its_exclusive_work_is_taken_away(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", exclusive=True).start("j1").close("a").remove("a")
    assert group.agent("a").admin is Admin.REMOVED
    assert group.assigned == {"a": ["j1"]}
    group.advance(11)
    assert "a" not in {agent.agent_id for agent in group.dispatcher.ledger.agents.values()}
    assert group.assigned == {"b": ["j1"]}


def test_who_did_it_when_and_why_is_written(group: GroupBench) -> None:
    group.agents("a").drain("a", ends="pause", deadline_s=5)
    rows = group.last.writes.agents
    assert {(row.admin_actor, row.admin_reason, row.admin_us) for row in rows} == {("ann", "new disk", group.now_us)}


def test_labels_that_would_make_one_kind_of_agents_too_many_are_refused_and_the_agent_works_on() -> None:
    group = GroupBench(agent_classes_max=1).agents("a", "b")
    group.label("a", labels=["host=one"])
    assert group.replies == ["refused AGENT_WRONG_STATE"]
    assert group.agent("a").operator_labels == frozenset()
    group.submit("j1", "j2")
    assert group.assigned == {"a": ["j1"], "b": ["j2"]}
