# SPDX-License-Identifier: Apache-2.0
"""Which bolts are installed: the entry points of the group, found by name. Nothing here imports a bolt."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from leyden.bolts.errors import BoltError, BoltValueError

GROUP = "leyden.bolts"
OWN = "leyden-bolts"


def owner(entry: EntryPoint) -> str:
    """Return the normalised name of the distribution that registers an entry."""
    return _normalized((entry.dist.name if entry.dist is not None else None) or "unknown")


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@cache
def registered() -> dict[str, tuple[EntryPoint, ...]]:
    """Return all entries by the name that they ask for."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def listed() -> dict[str, EntryPoint]:
    """Return the entries by the names that are good for each: ``name``, or ``distribution:name`` where it is taken."""
    names: dict[str, EntryPoint] = {}
    for name, entries in registered().items():
        first = _rightful(entries)
        names |= {f"{owner(entry)}:{name}": entry for entry in entries if entry is not first}
        if first is not None:
            names[name] = first
    return names


def find(name: str) -> EntryPoint:
    """Return the entry that ``name`` means: a bolt's name, or ``distribution:name``.

    Raises:
        BoltValueError: Nothing has this name; the message names the nearest ones.
        BoltError: Several distributions register it.
    """
    if not isinstance(name, str):
        raise BoltValueError(f"the name of a bolt must be a string; got {name!r}")
    distribution, _, short = name.rpartition(":")
    entries = registered().get(short, ())
    if distribution:
        entries = tuple(entry for entry in entries if owner(entry) == _normalized(distribution))
    if not entries:
        raise BoltValueError(_unknown(name))
    first = _rightful(entries)
    if first is None:
        claims = " and ".join(sorted(f"{owner(entry)} ({entry.value})" for entry in entries))
        ways = sorted({repr(f"{owner(entry)}:{short}") for entry in entries})
        way_out = f"say which one is meant: {' or '.join(ways)}" if len(ways) > 1 else "it can only mean one of them"
        raise BoltError(f"the bolt {name!r} is registered twice, by {claims}: {way_out}")
    return first


def _rightful(entries: tuple[EntryPoint, ...]) -> EntryPoint | None:
    """Return who owns a name: a built-in before all others, else the only one that asks for it."""
    own = [entry for entry in entries if owner(entry) == OWN]
    if own:
        return own[0]
    return entries[0] if len(entries) == 1 else None


def _unknown(name: str) -> str:
    known = sorted(listed())
    near = get_close_matches(name, known, n=3)
    if near:
        return f"there is no bolt {name!r}; did you mean {' or '.join(map(repr, near))}?"
    return f"there is no bolt {name!r}; installed are {', '.join(known) or 'none'}"
