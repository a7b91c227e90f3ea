"""Deadlines: whoever is due is woken once, in order, and nothing that was disarmed ever is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.dispatch.deadlines import BUCKET_US, MOVES_STEP_MAX, SORTED_CALL_MAX, STALE_CALL_MAX, Deadlines

MINUTE_US = 60_000_000


class Owners:
    """Owners that remember their armed deadline themselves, as jobs and agents do."""

    def __init__(self) -> None:
        self.due: dict[int, int] = {}
        self.deadlines = Deadlines(lambda owner, due_us: self.due.get(owner) == due_us)

    def arm(self, owner: int, due_us: int) -> None:
        self.disarm(owner)
        self.due[owner] = due_us
        self.deadlines.arm(owner, due_us)

    def disarm(self, owner: int) -> None:
        if owner in self.due:
            self.deadlines.disarm(owner, self.due.pop(owner))

    def wake(self, now_us: int) -> list[int]:
        """All that are woken at `now_us`, in as many turns as the deadlines ask for."""
        woken: list[int] = []
        while True:
            self.deadlines.advance(now_us, self.due.__getitem__)
            while (owner := self.deadlines.pop_due(now_us)) is not None:
                del self.due[owner]
                woken.append(owner)
            next_us = self.deadlines.next_us(now_us)
            if next_us is None or next_us > now_us:
                return woken
            if next_us == now_us and not any(due_us <= now_us for due_us in self.due.values()):
                return woken  # a bucket waits to be moved, nobody in it is due


def test_owners_are_woken_in_the_order_of_their_deadlines() -> None:
    owners = Owners()
    for owner, due_us in ((1, 30), (2, 10), (3, 20), (4, 5 * MINUTE_US)):
        owners.arm(owner, due_us)
    assert owners.wake(25) == [2, 3]
    assert owners.wake(30) == [1]
    assert owners.wake(5 * MINUTE_US - 1) == []
    assert owners.wake(5 * MINUTE_US) == [4]


def test_owner_is_not_woken_when_it_was_disarmed_near_or_far() -> None:
    owners = Owners()
    owners.wake(0)
    owners.arm(1, 10)
    owners.arm(2, 90 * MINUTE_US)
    owners.disarm(1)
    owners.disarm(2)
    assert owners.wake(100 * MINUTE_US) == []
    assert owners.deadlines.next_us(100 * MINUTE_US) is None


def test_far_deadline_leaves_nothing_behind_when_it_is_disarmed() -> None:
    owners = Owners()
    for owner in range(1, 1_001):
        owners.arm(owner, 90 * MINUTE_US + owner)
        owners.disarm(owner)
    assert len(owners.deadlines) == 0


def test_near_deadlines_that_were_disarmed_are_forgotten_when_they_are_most() -> None:
    owners = Owners()
    owners.wake(0)
    for _ in range(1_000):
        owners.arm(1, 30)
        owners.disarm(1)
    assert len(owners.deadlines) <= 130


def test_stale_half_of_a_large_heap_is_forgotten_in_slices_and_the_rest_wakes_in_order() -> None:
    owners = Owners()
    owners.wake(0)
    for owner in range(1_000):
        owners.arm(owner, 1_000 - owner)
    for owner in range(600):
        before = len(owners.deadlines)
        owners.disarm(owner)
        assert before - len(owners.deadlines) <= SORTED_CALL_MAX
    assert len(owners.deadlines) < 2 * 400 + SORTED_CALL_MAX
    assert owners.wake(1_000) == list(range(999, 599, -1))
    assert len(owners.deadlines) == 0


def test_stale_entries_in_front_are_thrown_away_a_slice_a_call() -> None:
    owners = Owners()
    owners.wake(0)
    stale = STALE_CALL_MAX + 10
    owners.due = dict.fromkeys(range(3 * stale), 5)
    for owner in owners.due:
        owners.deadlines.arm(owner, 5)
    for owner in range(stale):
        del owners.due[owner]
    assert owners.deadlines.next_us(0) == 5
    assert len(owners.deadlines) == 3 * stale - STALE_CALL_MAX


def test_next_wake_up_is_the_minute_before_a_far_deadline() -> None:
    owners = Owners()
    owners.arm(1, 10 * MINUTE_US + 5)
    assert owners.deadlines.next_us(0) == 9 * MINUTE_US
    owners.wake(9 * MINUTE_US)
    assert owners.deadlines.next_us(9 * MINUTE_US) == 10 * MINUTE_US + 5


def test_bucket_is_moved_in_slices_when_it_is_large() -> None:
    owners = Owners()
    count = 2 * MOVES_STEP_MAX + 5
    for owner in range(1, count + 1):
        owners.arm(owner, 3 * MINUTE_US + owner)
    deadlines, now_us = owners.deadlines, 2 * MINUTE_US
    turns = 0
    while deadlines.next_us(now_us) == now_us:
        before = len(deadlines.entries())
        deadlines.advance(now_us, owners.due.__getitem__)
        turns += 1
        assert len(deadlines.entries()) == before == count
    assert turns == 3
    assert owners.wake(4 * MINUTE_US) == list(range(1, count + 1))


def test_owner_is_woken_in_time_when_it_arms_while_its_bucket_is_being_moved() -> None:
    owners = Owners()
    for owner in range(1, MOVES_STEP_MAX + 10):
        owners.arm(owner, 3 * MINUTE_US + owner)
    owners.deadlines.advance(2 * MINUTE_US, owners.due.__getitem__)
    owners.arm(100_000, 3 * MINUTE_US)
    assert owners.wake(3 * MINUTE_US) == [100_000]


times = st.integers(0, 6 * BUCKET_US)
acts = st.one_of(
    st.tuples(st.just("arm"), st.integers(1, 8), times),
    st.tuples(st.just("disarm"), st.integers(1, 8), st.just(0)),
    st.tuples(st.just("wake"), st.just(0), st.integers(0, 2 * BUCKET_US)),
)


@given(st.lists(acts, max_size=60))
def test_deadlines_agree_with_a_plain_dictionary(script: list[tuple[str, int, int]]) -> None:
    owners, model, now_us = Owners(), dict[int, int](), 0
    for act, owner, value in script:
        if act == "arm":
            owners.arm(owner, now_us + value)
            model[owner] = now_us + value
        elif act == "disarm":
            owners.disarm(owner)
            model.pop(owner, None)
        else:
            now_us += value
            due = sorted((due_us, owner) for owner, due_us in model.items() if due_us <= now_us)
            assert owners.wake(now_us) == [owner for _, owner in due]
            for _, gone in due:
                del model[gone]
        next_us = owners.deadlines.next_us(now_us)
        assert (next_us is None) == (not model)
        if model and next_us is not None:
            assert next_us <= max(now_us, min(model.values())), "nobody is woken late"
