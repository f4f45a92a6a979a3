# SPDX-License-Identifier: Apache-2.0
"""A client that swallows everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class DummyExperiment:
    """Stands in for any client: every attribute, call, index and ``with`` block gives itself and does nothing.

    Examples:
        >>> client = DummyExperiment()
        >>> client.add_image("sample", None)[0].anything(1) is client
        True
    """

    def __getattr__(self, name: str) -> DummyExperiment:
        # copy and pickle look for special methods and must not find any here.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> DummyExperiment:
        """Do nothing."""
        return self

    def __getitem__(self, key: Any) -> DummyExperiment:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        return None

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> DummyExperiment:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        return None
