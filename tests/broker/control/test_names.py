from __future__ import annotations

import pytest

from broker.control.names import (
    FORBIDDEN,
    check_display_name,
    check_slug,
    chosen_slug,
    slug_of,
    split_job,
    split_parent,
)
from broker.errors import MalformedError

TWENTY_TWO = (*"<>#%{}|", "\\", *"/^~[];,:?@=&.`")


@pytest.mark.req("R10")
@pytest.mark.parametrize("character", TWENTY_TWO)
def test_display_name_refuses_each_forbidden_character_naming_it_and_its_position(character: str) -> None:
    with pytest.raises(MalformedError) as caught:
        check_display_name(f"Group{character}1", "group.display_name")
    error = caught.value
    assert (error.reason, error.details["field"]) == ("FORBIDDEN_CHARACTER", "group.display_name")
    assert (error.details["character"], error.details["position"]) == (character, "6")
    assert f"has {character!r} at position 6" in error.text


@pytest.mark.req("R10")
def test_forbidden_characters_are_the_twenty_two_and_no_others() -> None:
    assert sorted(FORBIDDEN) == sorted(TWENTY_TWO)
    assert len(set(TWENTY_TWO)) == 22
    for character in map(chr, range(32, 0x250)):
        if character not in TWENTY_TWO:
            check_display_name(f"a{character}b", "name")


@pytest.mark.req("R10")
@pytest.mark.parametrize("name", ["Private Agent Group 1", "", "Süd-West (neu) + 50 €!", "組"])
def test_display_name_passes_when_nothing_in_it_is_forbidden(name: str) -> None:
    check_display_name(name, "group.display_name")


def test_display_name_names_the_first_of_several_forbidden_characters() -> None:
    with pytest.raises(MalformedError, match="position 2"):
        check_display_name("a.b/c", "name")


@pytest.mark.parametrize("slug", ["a", "a1", "a-b", "a" * 63])
def test_slug_is_taken_as_it_is(slug: str) -> None:
    assert check_slug(slug, "group_id") == slug


@pytest.mark.parametrize("slug", ["", "A", "1a", "-a", "a-", "a_b", "a.b", "ä", "a" * 64, "a\n"])
def test_slug_is_refused_when_it_is_no_id(slug: str) -> None:
    with pytest.raises(MalformedError) as caught:
        check_slug(slug, "group_id")
    assert (caught.value.reason, caught.value.details["field"]) == ("MALFORMED_ID", "group_id")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Default", "default"),
        ("Größe Süd 2", "groe-sud-2"),
        ("  Two   words  ", "two-words"),
        ("42 is first", "is-first"),
        ("x" * 62 + " yz", "x" * 62),
        ("a" * 100, "a" * 63),
    ],
)
def test_slug_is_made_from_the_display_name(name: str, slug: str) -> None:
    assert slug_of(name, "group_id") == slug == check_slug(slug, "group_id")
    assert chosen_slug("", name, "group_id") == slug
    assert chosen_slug("chosen", name, "group_id") == "chosen"


@pytest.mark.parametrize("name", ["", "組", "42", "---"])
def test_slug_must_be_given_when_none_can_be_made(name: str) -> None:
    with pytest.raises(MalformedError, match="give one in group_id"):
        slug_of(name, "group_id")


def test_parent_is_taken_apart() -> None:
    assert split_parent("organizations/o") == ("o", "", "")
    assert split_parent("organizations/o/groups/g") == ("o", "groups", "g")
    assert split_parent("organizations/o/environments/e") == ("o", "environments", "e")


@pytest.mark.parametrize(
    "parent",
    ["", "o", "organizations/", "organizations/o/", "organizations/o/agents/a", "organizations/o/groups/g/agents/a"],
)
def test_parent_is_refused_when_it_is_no_name(parent: str) -> None:
    with pytest.raises(MalformedError) as caught:
        split_parent(parent)
    assert caught.value.reason == "MALFORMED_NAME"


def test_job_name_is_taken_apart() -> None:
    name = "organizations/o/jobs/00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert split_job(name) == ("o", bytes(range(16)))
    for wrong in (name.replace("-", ""), name.upper(), name + "0", name.replace("jobs", "job")):
        with pytest.raises(MalformedError):
            split_job(wrong)
