"""The sandbox as a data source: `sandbox:KIND?key=value&…`, as in `sandbox:preferences?rows=2000&split=test`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from preflab.core.records import UserError
from preflab.sandbox.world import MOST_ROWS, SPLITS, World, demonstration_rows, known, preference_rows, prompt_rows

SCHEME = "sandbox:"

# What each kind of rows can be told, beside `seed`: the arguments of the function that writes it.
KINDS: dict[str, tuple[Callable[..., Iterator[dict[str, Any]]], frozenset[str]]] = {
    "preferences": (preference_rows, frozenset({"rows", "split", "style", "responses", "noise", "length_bias"})),
    "demonstrations": (demonstration_rows, frozenset({"rows", "split"})),
    "prompts": (prompt_rows, frozenset({"rows", "split"})),
}
KEYS: dict[str, type[int] | type[float] | type[str]] = {
    "seed": int,
    "rows": int,
    "responses": int,
    "noise": float,
    "length_bias": float,
    "split": str,
    "style": str,
}
WORLD_KEYS = frozenset({"seed", "noise", "length_bias"})
DEFAULTS: dict[str, Any] = {"rows": 1000, "split": "train"}


def sandbox_source(spec: str) -> Iterator[dict[str, Any]]:
    """The rows that a spec names, one at a time.

    Kinds are `preferences`, `demonstrations` and `prompts`; keys are `rows` (1000), `split` (train or test) and `seed`
    (0), and for preferences also `noise` (0.5), `length_bias` (0), `style` (HOMEWORK) and `responses` (2). Raises
    UserError, before the first row, for anything else.
    """
    kind, _, query = spec.removeprefix(SCHEME).partition("?")
    write, own_keys = KINDS[known(kind, KINDS, "kind")]
    values = DEFAULTS | {key: _value(key, text, own_keys) for key, text in _pairs(query)}
    known(values["split"], SPLITS, "split")
    world = World(**{key: values.pop(key) for key in WORLD_KEYS & values.keys()})
    return write(world, **values)


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise UserError(f"sandbox: cannot read {query!r}; it should look like rows=2000&seed=1") from None
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"sandbox: {key!r} is given {keys.count(key)} times; once is right")
    return pairs


def _value(key: str, text: str, own_keys: frozenset[str]) -> Any:
    known(key, sorted(own_keys | {"seed"}), "key")
    try:
        value = KEYS[key](text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[KEYS[key]]
        raise UserError(f"sandbox: {key} is {text!r}; it should be {wanted}") from None
    if key == "rows" and not 1 <= int(value) <= MOST_ROWS:
        raise UserError(f"sandbox: rows is {text[:20]}; it must be from 1 to {MOST_ROWS}")
    return value
