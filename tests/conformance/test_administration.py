from __future__ import annotations

import pytest

from broker.dispatch.model import GroupNo
from broker.errors import ConflictError, NotFoundError
from broker.store.base import EnvironmentRow, GroupRow, OrganisationRow
from tests.conformance.bench import StoreBench


async def test_fresh_store_has_only_what_was_inserted(bench: StoreBench) -> None:
    store = bench.make()
    assert [row.slug for row in await bench.store.organisations()] == ["acme"]
    assert [row.slug for row in await bench.store.groups()] == ["east", "west"]
    assert await bench.store.environments() == []
    assert store.kind == bench.store.kind


async def test_rows_come_back_as_they_were_inserted(bench: StoreBench) -> None:
    organisation = await bench.store.insert_organisation("globex", "Globex \N{SNOWMAN}", 5)
    group = await bench.store.insert_group(organisation.org_no, "north", "North", "cold", "managed", False, 6)
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
        await bench.store.insert_group(99, "north", "North", "", "private", True, 5)
    with pytest.raises(NotFoundError, match=f"group number {bench.group}"):
        await bench.store.insert_environment(stranger, "test", "Test", "", bench.group, (), 7)
    with pytest.raises(NotFoundError, match="group number 99"):
        await bench.store.insert_environment(bench.org_no, "test", "Test", "", bench.group, (GroupNo(99),), 7)
    assert await bench.store.environments() == []


async def test_store_may_be_closed_twice(bench: StoreBench) -> None:
    await bench.store.close()
    await bench.store.close()
