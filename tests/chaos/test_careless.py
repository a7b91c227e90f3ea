"""Defects from outside name what they replace: a product that has changed must not make them harmless in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import Parameter, signature

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

    replaced = [one for patch in REPLACED for one in patch._setattr]
    assert replaced
    assert [name for owner, name, really in replaced if not is_called_alike(really, getattr(owner, name))] == []


def is_called_alike(really: object, instead: object) -> bool:
    """Whether what takes the place of a function can be called as that is; of what is none there is nothing to say."""
    if not callable(really) or not callable(instead):
        return callable(really) == callable(instead)
    positional, named = list[Parameter](), list[Parameter]()
    for one in signature(really).parameters.values():
        if one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            (named if one.kind is Parameter.KEYWORD_ONLY else positional).append(one)
    try:
        signature(instead).bind(*positional, **{one.name: one for one in named})
    except TypeError:
        return False
    return True


def test_function_that_took_one_more_argument_is_called_otherwise() -> None:
    def with_one(first: int, *, is_new: bool) -> None: ...

    assert is_called_alike(with_one, lambda *given, **named: None)
    assert is_called_alike(with_one, with_one)
    assert not is_called_alike(with_one, lambda first: None)
    assert not is_called_alike(with_one, 1)


def test_broker_without_a_guard_is_named_by_a_guard_that_there_is() -> None:
    with pytest.raises(AssertionError):
        careless.without("no-such-guard")
    assert careless.without("makes-room") == ("-m", "tests.chaos.careless", "makes-room")
