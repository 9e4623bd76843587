"""The registry of event types: which record reads which name, and how an old version becomes the newest.

A name without a suffix is version 1 of its type; ``name/2`` is version 2. The log keeps the bytes as they were
signed; readers get the newest record, lifted step by step by upcasters (pure functions from one version's record to
the next).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec

from schemas.events import EVENT_TYPES, Body, type_of

Upcaster = Callable[[Any], Body]


def split_name(name: str) -> tuple[str, int]:
    """``("job.submitted", 2)`` from ``job.submitted/2``."""
    base, _, version = name.partition("/")
    return base, int(version) if version else 1


def _name_of(base: str, version: int) -> str:
    return base if version == 1 else f"{base}/{version}"


class Registry:
    """All versions of all types.

    Raises AssertionError when a name is not written as `split_name` reads it or is there twice, when versions have
    holes, and when an upcaster is missing or belongs to nothing.
    """

    def __init__(self, records: Iterable[type[Body]], upcasters: Mapping[str, Upcaster] | None = None) -> None:
        self.records: dict[str, type[Body]] = {}
        for record in records:
            name = str(record.__struct_config__.tag)
            if name in self.records:
                raise AssertionError(f"{name} is there twice")
            self.records[name] = record
        self._upcasters = dict(upcasters or {})
        if stray := sorted(self._upcasters.keys() - self.records.keys()):
            raise AssertionError(f"upcasters of unknown types: {stray}")
        latest: dict[str, int] = {}
        for name in sorted(self.records, key=split_name):
            base, version = split_name(name)
            if name != _name_of(base, version):
                raise AssertionError(f"{name} has to be written {_name_of(base, version)}")
            if version != latest.get(base, 0) + 1:
                raise AssertionError(f"versions of {base} have a hole before {version}")
            latest[base] = version
        for name in self.records:
            base, version = split_name(name)
            if (version < latest[base]) != (name in self._upcasters):
                raise AssertionError(f"{name} needs an upcaster exactly when it is not the newest version")
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(cast(Any, _union(tuple(self.records.values()))))

    def decode(self, body: bytes) -> Body:
        """The record as it was signed. Raises msgspec.ValidationError or msgspec.DecodeError."""
        return cast(Body, self._decoder.decode(body))

    def newest(self, event: Body) -> Body:
        """The same event in the newest version of its type."""
        name = type_of(event)
        while (upcaster := self._upcasters.get(name)) is not None:
            base, version = split_name(name)
            event, name = upcaster(event), _name_of(base, version + 1)
            if type_of(event) != name:
                raise AssertionError(f"the upcaster before {name} gave a {type_of(event)}")
        return event


def _union(records: tuple[type[Body], ...]) -> Any:
    union: Any = records[0]
    for record in records[1:]:
        union = union | record
    return union


REGISTRY = Registry(EVENT_TYPES)
