# SPDX-License-Identifier: Apache-2.0
"""The part of JSON Schema that our schemas use, so that no package is needed to hold them."""

from __future__ import annotations

from typing import Any

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
KNOWN = {
    *("type", "const", "enum", "minimum", "exclusiveMinimum", "minLength", "items", "$ref"),
    *("properties", "required", "additionalProperties", "$defs", "$schema", "title", "description"),
}


def violations(value: Any, schema: dict, root: dict | None = None, where: str = "$") -> list[str]:
    """What of `value` the schema forbids, one line each; empty when it is valid."""
    root = root or schema
    unknown = set(schema) - KNOWN
    assert not unknown, f"the checker does not know {unknown}"
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return violations(value, target, root, where)
    found = [f"{where}: {text}" for text in _of_value(value, schema)]
    if isinstance(value, dict):
        found += _of_object(value, schema, root, where)
    if isinstance(value, list) and "items" in schema:
        for k, item in enumerate(value):
            found += violations(item, schema["items"], root, f"{where}[{k}]")
    return found


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, TYPES[name])


def _of_value(value: Any, schema: dict) -> list[str]:
    found = []
    allowed = schema.get("type", [])
    allowed = [allowed] if isinstance(allowed, str) else allowed
    if allowed and not any(_is(value, name) for name in allowed):
        found.append(f"{value!r} is no {' or '.join(allowed)}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{value!r} is none of {schema['enum']}")
    if _is(value, "number") and value < schema.get("minimum", value):
        found.append(f"{value} is under {schema['minimum']}")
    if (
        _is(value, "number")
        and "exclusiveMinimum" in schema
        and value <= schema["exclusiveMinimum"]
    ):
        found.append(f"{value} is not over {schema['exclusiveMinimum']}")
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        found.append("too short")
    return found


def _of_object(value: dict, schema: dict, root: dict, where: str) -> list[str]:
    properties = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    found = [f"{where}: lacks {name}" for name in schema.get("required", []) if name not in value]
    for name, item in value.items():
        inner = properties.get(name, more)
        if inner is False:
            found.append(f"{where}: {name} is not known")
        elif inner is not True:
            found += violations(item, inner, root, f"{where}.{name}")
    return found
