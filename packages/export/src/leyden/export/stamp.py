# SPDX-License-Identifier: Apache-2.0
"""What is stored inside an exported file beside its graph."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from leyden.export.contract import Contract
from leyden.export.errors import DamagedFileError, ExportValueError

STAMP_VERSION = 1


@dataclass(frozen=True)
class Stamp:
    """The record that travels in the file.

    Attributes:
        format: Name of the format.
        contract: What goes in and comes out.
        report: The report as JSON data.
        metadata: The user's own metadata.
        companions: SHA-256 of each file that the main one refers to, by its name.
    """

    format: str
    contract: Contract
    report: dict[str, Any]
    metadata: dict[str, Any]
    companions: dict[str, str]

    def to_json(self) -> str:
        """Return the record as one line of JSON, the same for the same content."""
        plain = {
            "version": STAMP_VERSION,
            "format": self.format,
            "contract": self.contract.to_plain(),
            "report": self.report,
            "metadata": self.metadata,
            "companions": self.companions,
        }
        return json.dumps(plain, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, file: str) -> Stamp:
        """Rebuild the record of the file named ``file``."""
        try:
            plain = json.loads(text)
            if plain["version"] > STAMP_VERSION:
                raise DamagedFileError(
                    f"{file} has the record version {plain['version']}, this leyden-export reads up to "
                    f"{STAMP_VERSION}: install a newer one"
                )
            contract = Contract.from_plain(plain["contract"])
            return cls(plain["format"], contract, plain["report"], plain["metadata"], plain["companions"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"{file} is damaged: its record can not be read ({error})") from error


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the user's metadata if it comes back from JSON as it went in."""
    plain = dict(metadata or {})
    try:
        back = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ExportValueError(f"metadata must be plain JSON data: {error}") from error
    for key, value in plain.items():
        if key not in back or back[key] != value:
            raise ExportValueError(
                f"metadata[{key!r}] would not come back as it is ({value!r}): use "
                "str keys, lists for tuples, plain values"
            )
    return plain


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the named packages."""
    found = {"python": platform.python_version()}
    for package in ("leyden-export", "torch", *packages):
        found[package] = importlib.metadata.version(package)
    return found
