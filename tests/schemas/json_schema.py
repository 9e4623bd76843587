"""A checker for the part of JSON Schema 2020-12 that the generated files use. An unknown keyword is an error."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

ANNOTATIONS: Final = ("$schema", "$id", "$defs", "title", "description", "default", "discriminator")
TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}
CHECKS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "enum": lambda wanted, value: value in wanted,
    "const": lambda wanted, value: value == wanted,
    "minimum": lambda wanted, value: value >= wanted,
    "maximum": lambda wanted, value: value <= wanted,
    "minItems": lambda wanted, value: len(value) >= wanted,
    "maxItems": lambda wanted, value: len(value) <= wanted,
    "minLength": lambda wanted, value: len(value) >= wanted,
    "maxLength": lambda wanted, value: len(value) <= wanted,
    # ECMA's $ is the end of the text; Python's would let a line feed follow.
    "pattern": lambda wanted, value: re.search(re.sub(r"\$$", r"\\Z", wanted), value) is not None,
    "required": lambda wanted, value: all(name in value for name in wanted),
}


def faults(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What is wrong with a value, each with its place. References go to the schema's own ``$defs``."""
    return list(_faults(schema, value, "$", schema.get("$defs", {})))


def _faults(schema: Mapping[str, Any], value: Any, place: str, definitions: Mapping[str, Any]) -> Iterator[str]:
    if "type" in schema and not TYPES[schema["type"]](value):
        yield f"{place} is no {schema['type']}"
        return
    for keyword, wanted in schema.items():
        match keyword:
            case "type" | "items":
                pass
            case "$ref":
                yield from _faults(definitions[wanted.removeprefix("#/$defs/")], value, place, definitions)
            case "anyOf":
                if all(any(_faults(choice, value, place, definitions)) for choice in wanted):
                    yield f"{place} fits no choice"
            case "properties":
                for name in wanted.keys() & value.keys():
                    yield from _faults(wanted[name], value[name], f"{place}.{name}", definitions)
            case "additionalProperties":
                unknown = value.keys() - schema.get("properties", {}).keys()
                for name in sorted(unknown):
                    yield from _unknown(wanted, value[name], f"{place}.{name}", definitions)
            case "prefixItems":
                for index, (element_schema, element) in enumerate(zip(wanted, value, strict=False)):
                    yield from _faults(element_schema, element, f"{place}[{index}]", definitions)
            case _ if keyword in CHECKS:
                if not CHECKS[keyword](wanted, value):
                    yield f"{place} breaks {keyword} {wanted}"
            case _ if keyword not in ANNOTATIONS:
                raise AssertionError(f"the checker does not know {keyword}")
    if "items" in schema and schema["items"] is not False:
        for index, element in enumerate(value):
            yield from _faults(schema["items"], element, f"{place}[{index}]", definitions)


def _unknown(wanted: Any, value: Any, place: str, definitions: Mapping[str, Any]) -> Iterator[str]:
    if wanted is False:
        yield f"{place} is unknown"
    else:
        yield from _faults(wanted, value, place, definitions)
