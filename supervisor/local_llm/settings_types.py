"""What settings are made of: the base of every section, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def _as_written(value: object) -> object:
    """YAML reads `on` and `off` as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


AutoOnOff = Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_written)]
AutoOff = Annotated[Literal["auto", "off"], BeforeValidator(_as_written)]
OnLocalOff = Annotated[Literal["on", "local", "off"], BeforeValidator(_as_written)]


MISPLACED = "misplaced"


def misplaced(message: str, *path: str) -> PydanticCustomError:
    """What a validator of a whole section raises, so that the key that is to blame is named, and its line.

    Args:
        message: for people.
        path: of the key, from the section on.
    """
    return PydanticCustomError(MISPLACED, "{message}", {"message": message, "path": path})


class Section(BaseModel):
    """Unknown keys are errors; values never change after loading. YAML's `8` is as good as `"8"`."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
