"""What every part of a configuration is: frozen, validated, and with a meaning for each of its fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


def neutral(default: Any, **constraints: Any) -> Any:
    """A field whose value does not change what is learned."""
    return Field(default, json_schema_extra={"neutral": True}, **constraints)


def as_typed(value: Any) -> Any:
    """A choice between numbers knows them as numbers only, while a command line gives text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
