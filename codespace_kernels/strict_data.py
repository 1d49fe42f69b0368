"""Dataclasses from JSON that nobody vouches for: each field has the type that the class says, or all is refused."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any, TypeVar

from codespace_kernels.errors import CodespaceKernelsError

T = TypeVar("T")


class UnsoundDataError(ValueError):
    """Data that are not of the form that was asked for; the text says where."""


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def read(kind: type[T], data: Any) -> T:
    """Make an object of a dataclass from what `dataclasses.asdict` gave; fields with defaults may be missing.

    Raises:
        UnsoundDataError: A field is unknown, missing, of another type, or refused by the class.
    """
    if not isinstance(data, dict):
        raise UnsoundDataError(f"{kind.__name__} is no object")
    hints = _hints(typing.cast("Any", kind))
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := set(data) - fields:
        raise UnsoundDataError(f"{kind.__name__} has no {min(map(str, unknown))!r}")
    values = {name: _value(hints[name], value, f"{kind.__name__}.{name}") for name, value in data.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError, CodespaceKernelsError) as error:
        raise UnsoundDataError(f"{kind.__name__}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (one for one in arguments if one is not type(None))
        return None if value is None else _value(inner, value, where)
    if dataclasses.is_dataclass(hint):
        return read(typing.cast("type[Any]", hint), value)
    if origin is dict and isinstance(value, dict):
        return {_value(arguments[0], key, where): _value(arguments[1], one, where) for key, one in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_value(arguments[0], one, where) for one in value)
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if origin is None and type(value) is hint:
        return value
    raise UnsoundDataError(f"{where} is {type(value).__name__}")
