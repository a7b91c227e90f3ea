"""Explanations: a reason and a next step for every state, never another opinion than that of placement."""

from __future__ import annotations

import pytest

from broker.dispatch.explain import AgentExplanation, Explanation, explain_agent, explain_final, explain_job
from broker.dispatch.messages import RejectCause
from broker.dispatch.model import JobState
from tests.broker.dispatch.bench import GroupBench

pytestmark = pytest.mark.req("R84")


def job(group: GroupBench, name: str) -> Explanation:
    found = explain_job(group.dispatcher.ledger, group.row(name).job_key)
    assert found is not None
    return found


def agent(group: GroupBench, name: str) -> AgentExplanation:
    found = explain_agent(group.dispatcher.ledger, group.agent_names[name])
    assert found is not None
    return found


def verdicts(group: GroupBench, name: str) -> dict[str, str]:
    return {group.agent_name(one.agent): one.why for one in job(group, name).verdicts}


def test_every_state_of_a_live_job_is_explained_and_no_final_one() -> None:
    group = GroupBench().agents("a").submit("later", delay_s=5)
    assert job(group, "later")[:2] == ("its start time has not come", "it is queued in 5.0 s")
    group.submit("j1")
    assert job(group, "j1")[:2] == (
        "attempt 1 on agent a: sent, not taken yet",
        "it is taken, or placed elsewhere in 5.0 s",
    )
    group.accept("j1")
    assert "has not started it" in job(group, "j1").summary
    group.start("j1")
    group.advance(2)
    assert job(group, "j1")[:2] == ("attempt 1 on agent a: it has run for 2.0 s", "it ends")
    group.fail("j1")
    assert job(group, "j1").summary == "backs off after 1 of 3 failures"
    group.submit("j2").finish("j2")
    assert explain_job(group.dispatcher.ledger, group.row("j2").job_key) is None


def test_job_with_an_attempt_that_is_away_or_stopping_says_until_when() -> None:
    group = GroupBench().agents("a", slots=2).submit("j1", "j2").start("j1", "j2").cancel("j2")
    assert job(group, "j2")[:2] == (
        "attempt 1 on agent a: told to stop (requested)",
        "the agent confirms, or it is given up in 15.0 s",
    )
    group.close("a")
    assert job(group, "j1")[:2] == (
        "attempt 1 on agent a: the agent's stream ended 0.0 s ago",
        "the agent comes back with it, or it is taken away in 2.0 s",
    )


def test_held_job_says_what_a_person_may_decide() -> None:
    group = GroupBench().agents("a").submit("j1", on_loss="hold", total_timeout_s=60).start("j1").lose("a")
    assert group.states == {"j1": JobState.HELD}
    assert job(group, "j1").next_step.startswith(
        "a person decides: `mesh jobs resolve JOB retry`, or fail, or succeed; it fails in 5"
    )


def test_waiting_job_names_the_strongest_reason() -> None:
    group = GroupBench().submit("j1")
    assert job(group, "j1").summary == "the group has no agent"
    group.add("a")
    assert job(group, "j1").summary == "no agent of the group is active"
    group.connect("a", operations=("other",))
    assert job(group, "j1").summary == "no agent that is there offers `work`"
    group.connect("a", operations=("work",), labels=())
    group.submit("j2", labels=("zone=eu",)).submit("j3", "j4")
    assert job(group, "j2").summary == "no agent that is there offers `work`, zone=eu"
    assert job(group, "j4").summary == "all agents that may take it are full; jobs of its kind ahead of it: 1"


def test_job_that_a_limit_holds_back_names_the_limit() -> None:
    group = GroupBench().agents("a", slots=4).submit("j1", "j2", limit_key="erp", running_max=1)
    assert job(group, "j2")[:2] == ("as many jobs of the limit 'erp' run as may: 1", "one of them ends")


def test_suspect_says_that_it_waits_for_an_agent_without_one() -> None:
    group = GroupBench().agents("a", slots=3).submit("s1", "s2")
    for _ in range(2):
        group.start("s1", "s2").close("a").connect("a", new=True)
    assert group.states == {"s1": "assigned", "s2": "queued"}
    assert job(group, "s2").summary.startswith("agents died with it 2 times")
    assert verdicts(group, "s2") == {"a": "it holds another job that agents died with"}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda group: group.add("x"), "it has never connected"),
        (lambda group: group.agents("x").disable("x"), "it is disabled by ann (new disk)"),
        (lambda group: group.agents("x").submit("y").drain("x"), "it drains by ann (new disk)"),
        (lambda group: group.agents("x").drain("x", ends="pause"), "it is paused by ann (new disk)"),
        (lambda group: group.agents("x").drain("x"), "it was drained to stop"),
        (lambda group: group.agents("x").leave("x"), "it left in good order"),
        (lambda group: group.agents("x").close("x"), "its stream ended"),
        (lambda group: group.agents("x").mute("x").advance(6), "nothing was heard of it for 6.0 s"),
        (lambda group: group.agents("x").leaving("x"), "it asked to leave (SIGTERM)"),
        (lambda group: group.agents("x", operations=("other",)), "it does not offer `work`"),
        (lambda group: group.agents("x").submit("y").reject("y"), "it refused work as busy"),
        (
            lambda group: group.agents("x").submit("y").reject("y", cause=RejectCause.UNFIT),
            "it has refused `work` as unfit since it connected",
        ),
        (lambda group: group.agents("x").submit("y").advance(5), "it did not take what it was sent"),
        (lambda group: group.agents("x").submit("y"), "it is full: 1 of 1 attempts"),
    ],
)
def test_each_agent_says_why_it_is_not_given_a_waiting_job(make: object, why: str) -> None:
    group = GroupBench()
    assert callable(make)
    make(group)
    group.submit("j1")
    assert verdicts(group, "j1")["x"] == why


def test_agent_of_a_later_rank_says_so() -> None:
    group = GroupBench(spread="ordered").agents("a", "b").rank("b", 1).submit("j1", "j2")
    assert verdicts(group, "j2")["b"] == "agents of an earlier rank than its 1 work"


def test_agent_is_explained_with_all_that_is_in_its_way() -> None:
    group = GroupBench().agents("a", slots=2).submit("j1")
    assert agent(group, "a").summary == "may be given work: it holds 1 of 2 attempts"
    group.submit("j2")
    assert agent(group, "a").obstacles == (("no_capacity", "it is full", "an attempt of its own ends"),)
    group.leaving("a").drain("a", then="requeue", deadline_s=30)
    found = agent(group, "a")
    assert found.summary == "gets nothing new: it drains by ann (new disk); it holds 2 of 2 attempts"
    assert found.next_step.endswith("what still runs is stopped in 30.0 s")
    assert [one.what for one in found.obstacles[1:]] == ["it asked to leave (SIGTERM)", "it is full"]


def test_agent_that_is_not_known_has_no_explanation() -> None:
    assert explain_agent(GroupBench().dispatcher.ledger, GroupBench().agents("a").agent_names["a"]) is None


@pytest.mark.parametrize(
    ("placing", "words"),
    [
        ("least_loaded", "no other agent is less loaded"),
        ("round_robin", "it is its turn"),
        ("random", "it is drawn"),
        ("power_of_d", "the least loaded of 3 agents that are drawn"),
    ],
)
def test_agent_is_told_how_its_group_places(placing: str, words: str) -> None:
    group = GroupBench().agents("a").configure(placing=placing, placing_choices=3)
    said = agent(group, "a")
    assert words in said.next_step
    assert not said.obstacles


def test_job_is_told_the_label_that_an_operator_took_from_the_agent() -> None:
    group = GroupBench().agents("a", labels=["zone=eu", "disk=ssd"]).label("a", labels=["zone=us"])
    group.submit("j1", labels=("disk=ssd", "zone=eu"))
    assert verdicts(group, "j1") == {"a": "it lacks the label zone=eu"}
    assert "no agent that is there offers" in job(group, "j1").summary
    group.label("a")
    assert group.assigned == {"a": ["j1"]}


def test_dead_letter_says_what_used_it_up() -> None:
    group = GroupBench().agents("a").submit("j1", crashes_max=2)
    for _ in range(2):
        group.start("j1").close("a").connect("a", new=True)
    said = explain_final(group.row("j1")).summary
    assert said.startswith("dead after 2 attempts: 2 crashes (crashed_agents): agents ended while they ran it")


def test_agent_that_was_sent_away_is_expected_back_and_not_said_to_have_left() -> None:
    group = GroupBench().agents("a").disable("a")
    words = [one.what for one in agent(group, "a").obstacles]
    assert (words[0].startswith("it is disabled"), words[1:]) == (True, ["its stream ended"])
    assert agent(group.enable("a"), "a").next_step == "its process connects again, or is started again"
