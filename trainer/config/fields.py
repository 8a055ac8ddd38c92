"""Fields by dotted path: listed, overridden as typed on a command line, compared, read and written."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from trainer.config.run import RunConfig
from trainer.config.section import Section
from trainer.errors import ConfigError


def leaves(section: type[Section] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every value of a configuration as (dotted path, field), in the order of declaration."""
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def value_at(config: Section, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


MOST_NEAR = 3


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """' (did you mean X?)', ' (did you mean X, Y or Z?)' where all fit alike, or an empty string.

    Args:
        prefix: shown before each, as '--' of options.
    """
    close = [f"{prefix}{path}" for path in _near(name, known)]
    *others, last = close or [""]
    return f" (did you mean {', '.join(others)}{' or ' if others else ''}{last}?)" if close else ""


def _near(name: str, known: Sequence[str]) -> list[str]:
    last = {path: path.rpartition(".")[2] for path in known}
    word = name.rpartition(".")[2].replace("-", "_")
    # a last part alone is sure, as 'iterations' for 'model.routing.iterations'
    sure = [path for path in known if _stands_for(word, last[path].replace("-", "_"))]
    if sure:
        return difflib.get_close_matches(name, sure, n=1, cutoff=0) if "." in name else sure[:MOST_NEAR]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    words = [] if close else difflib.get_close_matches(word, list(last.values()), n=1, cutoff=0.75)
    return close or [path for path in known if last[path] in words][:MOST_NEAR]


def _stands_for(word: str, name: str) -> bool:
    """The name itself, the end of it in several words, or its initials: learning_rate; batch_size; lr."""
    parts = name.split("_")
    initials = "".join(part[:1] for part in parts)
    return word == name or ("_" in word and name.endswith(f"_{word}")) or (len(parts) > 1 and word == initials)


def with_overrides(config: RunConfig, overrides: dict[str, Any]) -> RunConfig:
    """The configuration with dotted paths replaced, validated as a whole.

    Values may be text as typed on a command line; lists are comma-separated.

    Raises:
        ConfigError: unknown path (with the nearest known one) or a value out of range.
    """
    fields = dict(leaves())
    tree = config.model_dump(mode="json")
    for path, value in overrides.items():
        if path not in fields:
            raise ConfigError(f"unknown field {path}{nearest(path, list(fields))}; 'capsnet train --help' lists all")
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        is_list = isinstance(node[last], list)
        node[last] = [part for part in value.split(",") if part] if is_list and isinstance(value, str) else value
    return validated(tree, "command line")


def validated(tree: dict[str, Any], source: str) -> RunConfig:
    """A configuration from plain values; ConfigError names the source and the first wrong field."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        known = [name for name, _ in leaves()]
        first, *others = error.errors()
        path = _path(first["loc"], known)
        same = [other for other in others if _path(other["loc"], known) == path and other["input"] == first["input"]]
        reasons = [_reason(each["msg"]) for each in (first, *same)]  # several, where a value may be of several kinds
        reason = " or ".join([reasons[0], *(each.removeprefix("Input should be ") for each in reasons[1:])])
        if first["type"] == "extra_forbidden":
            reason = f"unknown field{nearest(path, known)}"
        given = "" if isinstance(first["input"], dict | Section) else f" (given: {first['input']!r})"
        more = f"; {len(others) - len(same)} more wrong" if len(others) > len(same) else ""
        raise ConfigError(f"{source}: {path + ': ' if path else ''}{reason}{given}{more}") from None


def _path(location: Sequence[int | str], known: Sequence[str]) -> str:
    """Dotted, of the field: without places in a list, and without the kinds of value that one field may have."""
    path = ".".join(str(part) for part in location if not isinstance(part, int))
    return next((field for field in known if path.startswith(f"{field}.")), path)


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").split(", unable to ")[0]


def load(path: Path) -> RunConfig:
    """Reads a config.json. Raises ConfigError where it is missing, not JSON or not valid."""
    try:
        tree = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); is this a run directory?") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None
    return validated(tree, str(path))


def dump(config: RunConfig) -> str:
    return config.model_dump_json(indent=2) + "\n"


def differences(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any, bool]]:
    """(path, old, new, neutral) for each value that differs."""
    found = []
    for path, field in leaves():
        before, after = value_at(old, path), value_at(new, path)
        if before != after:
            extra = field.json_schema_extra
            found.append((path, before, after, isinstance(extra, dict) and bool(extra.get("neutral"))))
    return found
