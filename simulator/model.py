"""What all parts of a scenario are made of: frozen models that refuse unknown keys, and fields with units.

Keys are written with hyphens (`same-zone`), fields with underscores. What a model dumps by alias is a scenario again.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from simulator import units


def _key_of(field: str) -> str:
    return field.rstrip("_").replace("_", "-")


class Model(BaseModel):
    """Frozen, strict about keys, hyphens in keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_key_of, ser_json_inf_nan="strings")

    @classmethod
    def keys(cls) -> list[str]:
        """The keys that it knows, as they are written."""
        return [field.alias or name for name, field in cls.model_fields.items()]


class OneOf(Model):
    """Exactly one of the keys in `kinds` (all, when that is empty) is given, and says what the rest means."""

    kinds: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [key for key in self._kinds() if getattr(self, key) is not None]
        if len(given) != 1:
            names = ", ".join(_key_of(kind) for kind in self._kinds())
            raise ValueError(f"exactly one of {names} is wanted, not {len(given)}")
        return self

    @classmethod
    def _kinds(cls) -> tuple[str, ...]:
        return cls.kinds or tuple(cls.model_fields)

    @property
    def kind(self) -> str:
        """Which one is given."""
        return next(key for key in self._kinds() if getattr(self, key) is not None)


def _unit(read: Callable[[object], float], write: Callable[[float], str], example: str) -> tuple[Any, ...]:
    schema = {"type": ["string", "number"], "examples": [example]}
    return BeforeValidator(read), PlainSerializer(write), WithJsonSchema(schema)


Seconds = Annotated[float, *_unit(units.seconds_of, units.duration_text, "250 ms")]
"""A duration, in seconds; 0 needs no unit."""
PerSecond = Annotated[float, *_unit(units.rate_of, units.rate_text, "100/s")]
"""A rate, per second."""
Share = Annotated[float, *_unit(units.share_of, units.share_text, "5 %")]
"""A share from 0 to 1."""
Money = Annotated[
    tuple[float, str],
    BeforeValidator(units.money_of),
    PlainSerializer(units.money_text),
    WithJsonSchema({"type": "string", "examples": ["0.21 EUR"]}),
]
"""An amount and its currency."""
Above = Annotated[float, Field(gt=0, le=1e9)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Whole = Annotated[int, Field(ge=0, le=1_000_000_000)]
Name = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
