from __future__ import annotations

import pytest

from broker.dispatch.model import AgentNo, GroupNo
from broker.errors import ConflictError, NotFoundError
from broker.store.base import AgentWordsRow, EnvironmentRow, GroupRow, GroupRules, OrganisationRow
from tests.conformance.bench import StoreBench


async def test_fresh_store_has_only_what_was_inserted(bench: StoreBench) -> None:
    store = bench.make()
    assert [row.slug for row in await bench.store.organisations()] == ["acme"]
    assert [row.slug for row in await bench.store.groups()] == ["east", "west"]
    assert await bench.store.environments() == []
    assert store.kind == bench.store.kind


async def test_rows_come_back_as_they_were_inserted(bench: StoreBench) -> None:
    organisation = await bench.store.insert_organisation("globex", "Globex \N{SNOWMAN}", 5)
    group = await bench.store.insert_group(
        GroupRow(GroupNo(0), organisation.org_no, "north", "North", "cold", "managed", False, 6)
    )
    environment = await bench.store.insert_environment(
        organisation.org_no, "production", "Production", "live", group.group_no, (group.group_no,), 7
    )
    await bench.reopen()

    assert organisation == OrganisationRow(organisation.org_no, "globex", "Globex \N{SNOWMAN}", 5)
    assert group == GroupRow(group.group_no, organisation.org_no, "north", "North", "cold", "managed", False, 6)
    assert (await bench.store.organisations())[-1] == organisation
    assert (await bench.store.groups())[-1] == group
    assert await bench.store.environments() == [environment]


async def test_environment_keeps_its_groups_in_order(bench: StoreBench) -> None:
    members = (bench.other_group, bench.group)

    row = await bench.store.insert_environment(bench.org_no, "test", "Test", "", bench.group, members, 7)

    assert row == EnvironmentRow(row.environment_no, bench.org_no, "test", "Test", "", bench.group, members, 7)
    assert await bench.store.environments() == [row]


async def test_environment_may_have_no_group(bench: StoreBench) -> None:
    row = await bench.store.insert_environment(bench.org_no, "test", "Test", "", GroupNo(0), (), 7)

    assert await bench.store.environments() == [row]


async def test_taken_name_is_a_conflict(bench: StoreBench) -> None:
    await bench.store.insert_environment(bench.org_no, "test", "Test", "", GroupNo(0), (), 7)

    with pytest.raises(ConflictError, match="organisation 'acme'"):
        await bench.store.insert_organisation("acme", "Another", 5)
    with pytest.raises(ConflictError, match="agent group 'east'"):
        await bench.make_group("east")
    with pytest.raises(ConflictError, match="environment 'test'"):
        await bench.store.insert_environment(bench.org_no, "test", "Test", "", GroupNo(0), (), 7)
    assert len(await bench.store.groups()) == 2


async def test_name_is_free_in_another_organisation(bench: StoreBench) -> None:
    bench.org_no = (await bench.store.insert_organisation("globex", "Globex", 5)).org_no

    await bench.make_group("east")

    assert [row.slug for row in await bench.store.groups()] == ["east", "west", "east"]


async def test_what_is_named_must_exist_in_the_organisation(bench: StoreBench) -> None:
    stranger = (await bench.store.insert_organisation("globex", "Globex", 5)).org_no

    with pytest.raises(NotFoundError, match="organisation number 99"):
        await bench.store.insert_group(GroupRow(GroupNo(0), 99, "north", "North", "", "private", True, 5))
    with pytest.raises(NotFoundError, match=f"group number {bench.group}"):
        await bench.store.insert_environment(stranger, "test", "Test", "", bench.group, (), 7)
    with pytest.raises(NotFoundError, match="group number 99"):
        await bench.store.insert_environment(bench.org_no, "test", "Test", "", bench.group, (GroupNo(99),), 7)
    assert await bench.store.environments() == []


async def test_changed_rows_are_read_as_they_are_now(bench: StoreBench) -> None:
    store = bench.store
    (organisation,) = await store.organisations()
    east, west = await store.groups()
    environment = await store.insert_environment(bench.org_no, "test", "Test", "", east.group_no, (east.group_no,), 7)
    changed = (
        organisation._replace(display_name="Acme Ltd", description="<b>"),
        west._replace(display_name="West 2", description="far", central_logging=False, mode="spill"),
        environment._replace(display_name="T", target_group_no=west.group_no, group_nos=(west.group_no, east.group_no)),
    )

    await store.update_organisation(changed[0])
    await store.update_group(changed[1])
    await store.update_environment(changed[2])
    await bench.reopen()

    assert await bench.store.organisations() == [changed[0]]
    assert await bench.store.groups() == [east, changed[1]]
    assert await bench.store.environments() == [changed[2]]


async def test_group_is_made_with_its_rules(bench: StoreBench) -> None:
    row = await bench.store.insert_group(
        GroupRow(GroupNo(0), bench.org_no, "north", "North", "", "private", True, 5, *GroupRules("ordered", "refuse"))
    )
    assert (row.mode, row.inactive_jobs) == ("ordered", "refuse")
    assert (await bench.store.groups())[-1] == row


async def test_environment_cannot_be_led_to_a_group_of_others_or_a_removed_one(bench: StoreBench) -> None:
    store = bench.store
    row = await store.insert_environment(bench.org_no, "test", "Test", "", bench.group, (bench.group,), 7)
    stranger = (await store.insert_organisation("globex", "Globex", 5)).org_no
    foreign = await store.insert_group(GroupRow(GroupNo(0), stranger, "north", "North", "", "private", True, 5))
    await store.remove_group(bench.other_group, 9)

    for group_no in (foreign.group_no, bench.other_group):
        with pytest.raises(NotFoundError, match=f"group number {group_no}"):
            await store.update_environment(row._replace(group_nos=(bench.group, group_no)))
    assert await store.environments() == [row]


async def test_words_about_an_agent_are_the_last_ones(bench: StoreBench) -> None:
    first, other = (AgentWordsRow(bench.group, AgentNo(number), "Host", "") for number in (1, 2))
    for row in (first, other, first._replace(description="in the cellar")):
        await bench.store.put_agent_words(row)
    await bench.reopen()
    assert sorted(await bench.store.agent_words()) == [first._replace(description="in the cellar"), other]


async def test_removed_group_is_in_no_environment_keeps_its_number_and_leaves_its_name(bench: StoreBench) -> None:
    store = bench.store
    both = (bench.group, bench.other_group)
    led = await store.insert_environment(bench.org_no, "led", "Led", "", bench.group, both, 7)
    other = await store.insert_environment(bench.org_no, "other", "Other", "", bench.other_group, both, 7)

    await store.remove_group(bench.group, 9)
    again = await bench.make_group("east")

    assert [(row.slug, row.group_no, row.removed_us) for row in await store.groups()] == [
        ("east", bench.group, 9),
        ("west", bench.other_group, 0),
        ("east", again, 0),
    ]
    assert await store.environments() == [
        led._replace(target_group_no=GroupNo(0), group_nos=(bench.other_group,)),
        other._replace(group_nos=(bench.other_group,)),
    ]


async def test_removed_organisation_takes_its_groups_and_environments_and_leaves_its_name(bench: StoreBench) -> None:
    store = bench.store
    await store.insert_environment(bench.org_no, "test", "Test", "", bench.group, (bench.group,), 7)
    kept = await store.insert_organisation("globex", "Globex", 5)
    north = await store.insert_group(GroupRow(GroupNo(0), kept.org_no, "north", "North", "", "private", True, 5))
    live = await store.insert_environment(kept.org_no, "live", "Live", "", north.group_no, (north.group_no,), 7)
    await store.remove_group(bench.other_group, 8)

    await store.remove_organisation(bench.org_no, 9)
    again = await store.insert_organisation("acme", "Acme", 10)

    assert [(row.slug, row.removed_us) for row in await store.organisations()] == [
        ("acme", 9),
        ("globex", 0),
        ("acme", 0),
    ]
    assert [(row.slug, row.removed_us) for row in await store.groups()] == [("east", 9), ("west", 8), ("north", 0)]
    assert await store.environments() == [live]
    assert again.org_no > kept.org_no
    with pytest.raises(NotFoundError):
        await bench.make_group("south")


async def test_removed_environment_is_gone(bench: StoreBench) -> None:
    rows = [
        await bench.store.insert_environment(bench.org_no, slug, slug, "", bench.group, (bench.group,), 7)
        for slug in ("one", "two")
    ]
    await bench.store.remove_environment(rows[0].environment_no)
    assert await bench.store.environments() == [rows[1]]


async def test_store_may_be_closed_twice(bench: StoreBench) -> None:
    await bench.store.close()
    await bench.store.close()
