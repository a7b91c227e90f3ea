"""Defects from outside name what they replace: a product that has changed must not make them harmless in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos import careless, reckless
from tests.e2e import defects

REPLACED = (careless.REPLACED, reckless.REPLACED, defects.REPLACED)
PLANTS = (*careless.GUARDS.values(), *reckless.DEFECTS.values(), *defects.DEFECTS.values())


@pytest.fixture
def as_before() -> Iterator[None]:
    """What is replaced meanwhile is put back."""
    yield
    for patch in REPLACED:
        patch.undo()


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_defect_replaces_only_what_the_product_has(plant: Callable[[], None]) -> None:
    plant()  # raises AttributeError for a name that is not there


def test_broker_without_a_guard_is_named_by_a_guard_that_there_is() -> None:
    with pytest.raises(AssertionError):
        careless.without("no-such-guard")
    assert careless.without("makes-room") == ("-m", "tests.chaos.careless", "makes-room")
