# SPDX-License-Identifier: Apache-2.0
"""Mean, sum, smallest and largest of a stream of numbers."""

from __future__ import annotations

import warnings
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from leyden.metrics.errors import MetricValueError, MetricWarning
from leyden.metrics.metric import Metric

NanStrategy: TypeAlias = Literal["error", "warn", "ignore", "disable"] | float


class _Aggregator(Metric):
    """Holds one running number in float64 and what to do with NaN.

    What a batch holds is only known on its device, so that NaN is counted there; ``"error"`` and ``"warn"`` speak in
    ``compute``.
    """

    _inputs_only = True

    def __init__(self, name: str, start: float, reduction: str, nan_strategy: NanStrategy, **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(nan_strategy, float) and nan_strategy not in ("error", "warn", "ignore", "disable"):
            raise MetricValueError(
                f"nan_strategy must be 'error', 'warn', 'ignore', 'disable' or a float; got {nan_strategy!r}"
            )
        self.nan_strategy = nan_strategy
        self._removes = nan_strategy in ("error", "warn", "ignore")
        self.add_state(name, torch.tensor(start, dtype=torch.float64), reduction)
        if self._removes:
            self.add_state("nans", torch.tensor(0), "sum")

    def extra_repr(self) -> str:
        """Name the arguments."""
        return f"nan_strategy={self.nan_strategy!r}"

    def _numbers(self, value: float | Tensor) -> Tensor:
        store = self._store
        if not isinstance(value, Tensor):
            wide = torch.float32 if store.device.type == "mps" else torch.float64
            return torch.as_tensor(value, dtype=wide, device=store.device)
        return value if value.device == store.device else value.to(store.device)

    def _replaced(self, value: Tensor) -> Tensor:
        """Return the numbers with NaN exchanged, if the strategy is a float."""
        if not isinstance(self.nan_strategy, float):
            return value
        return value.nan_to_num(self.nan_strategy, float("inf"), float("-inf"))

    def _as_result(self, name: str) -> Tensor:
        value: Tensor = self._store.values[name]
        return value.to(torch.get_default_dtype())

    def _check_values(self) -> None:
        if self.nan_strategy in ("error", "warn") and (found := int(self.nans)):
            message = f"{type(self).__name__} was given {found} NaN in `value` or `weight`"
            if self.nan_strategy == "error":
                raise MetricValueError(f"{message}; nan_strategy='ignore' leaves them out, a float replaces them")
            warnings.warn(f"{message}; they were left out (nan_strategy='warn')", MetricWarning, stacklevel=5)


class SumMetric(_Aggregator):
    """Sum of a stream of numbers, in float64.

    Args:
        nan_strategy: ``"warn"`` and ``"ignore"`` leave NaN out, ``"error"`` raises in ``compute``, ``"disable"`` takes
            them like numbers, a float replaces them.
        **options: See `Metric`.

    Raises:
        MetricValueError: If ``nan_strategy`` is none of these.

    Examples:
        >>> import torch
        >>> from leyden.metrics import SumMetric
        >>> metric = SumMetric()
        >>> metric.update(1.0)
        >>> metric.update(torch.tensor([2.0, 3.0]))
        >>> metric.compute()
        tensor(6.)
    """

    def __init__(self, nan_strategy: NanStrategy = "warn", **options: Any) -> None:
        super().__init__("sum_value", 0.0, "sum", nan_strategy, **options)

    def update(self, value: float | Tensor) -> None:
        """Add numbers: one, or a tensor of any shape."""
        value = self._numbers(value)
        values = self._store.values
        total = values["sum_value"]
        if self._removes:
            values["nans"].add_(value.isnan().count_nonzero())
            total.add_(value.nansum(dtype=total.dtype))
        else:
            total.add_(self._replaced(value).sum(dtype=total.dtype))

    def compute(self) -> Tensor:
        """Return the sum, a 0-dim tensor of the default dtype."""
        return self._as_result("sum_value")


class MeanMetric(_Aggregator):
    """Weighted mean of a stream of numbers, in float64.

    Args:
        nan_strategy: ``"warn"`` and ``"ignore"`` leave NaN out, ``"error"`` raises in ``compute``, ``"disable"`` takes
            them like numbers, a float replaces them (a weight that is NaN becomes 1).
        **options: See `Metric`.

    Raises:
        MetricValueError: If ``nan_strategy`` is none of these.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MeanMetric
        >>> metric = MeanMetric()
        >>> metric.update(torch.tensor([1.0, 3.0]))
        >>> metric.update(5.0, weight=2.0)
        >>> metric.compute()
        tensor(3.5000)
    """

    def __init__(self, nan_strategy: NanStrategy = "warn", **options: Any) -> None:
        super().__init__("mean_value", 0.0, "sum", nan_strategy, **options)
        self.add_state("weight", torch.tensor(0.0, dtype=torch.float64), "sum")

    def update(self, value: float | Tensor, weight: float | Tensor | None = None) -> None:
        """Add numbers.

        Args:
            value: One number, or a tensor of any shape.
            weight: Their weights, in a shape that broadcasts to that of ``value``; 1 if left out.
        """
        value = self._numbers(value)
        values = self._store.values
        total = values["mean_value"]
        if weight is not None:
            self._update_weighted(value.to(total.dtype), self._numbers(weight).to(total.dtype))
        elif self._removes:
            nans = value.isnan().count_nonzero()
            values["nans"].add_(nans)
            total.add_(value.nansum(dtype=total.dtype))
            values["weight"].add_(value.numel()).sub_(nans)
        else:
            total.add_(self._replaced(value).sum(dtype=total.dtype))
            values["weight"].add_(value.numel())

    def _update_weighted(self, value: Tensor, weight: Tensor) -> None:
        try:
            weight = weight.expand(value.shape)
        except RuntimeError:
            raise MetricValueError(
                f"weight must broadcast to the shape of value; got {tuple(weight.shape)} for {tuple(value.shape)}"
            ) from None
        values = self._store.values
        if self._removes:
            nans = value.isnan() | weight.isnan()
            values["nans"].add_(nans.sum())
            value, weight = value.masked_fill(nans, 0.0), weight.masked_fill(nans, 0.0)
        elif self.nan_strategy != "disable":
            value, weight = self._replaced(value), weight.nan_to_num(1.0, float("inf"), float("-inf"))
        values["mean_value"].add_((value * weight).sum())
        values["weight"].add_(weight.sum())

    def compute(self) -> Tensor:
        """Return the mean, a 0-dim tensor of the default dtype; NaN without data."""
        values = self._store.values
        mean: Tensor = values["mean_value"] / values["weight"]
        return mean.to(torch.get_default_dtype())


class _Extreme(_Aggregator):
    """The largest or smallest number of a stream."""

    def _update_extreme(self, value: float | Tensor, neutral: float, name: str) -> None:
        value = self._numbers(value)
        if value.numel() == 0:
            return
        values = self._store.values
        if self._removes:
            nans = value.isnan()
            values["nans"].add_(nans.sum())
            value = value.to(values[name].dtype).masked_fill(nans, neutral)
        else:
            value = self._replaced(value)
        low, high = value.aminmax()
        if neutral < 0:
            values[name] = torch.maximum(values[name], high)
        else:
            values[name] = torch.minimum(values[name], low)


class MaxMetric(_Extreme):
    """Largest number of a stream.

    Args:
        nan_strategy: ``"warn"`` and ``"ignore"`` leave NaN out, ``"error"`` raises in ``compute``, ``"disable"`` lets
            NaN be the result, a float replaces them.
        **options: See `Metric`.

    Raises:
        MetricValueError: If ``nan_strategy`` is none of these.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MaxMetric
        >>> metric = MaxMetric()
        >>> metric.update(torch.tensor([1.0, 4.0]))
        >>> metric.update(2.0)
        >>> metric.compute()
        tensor(4.)
    """

    def __init__(self, nan_strategy: NanStrategy = "warn", **options: Any) -> None:
        super().__init__("max_value", float("-inf"), "max", nan_strategy, **options)

    def update(self, value: float | Tensor) -> None:
        """Add numbers: one, or a tensor of any shape."""
        self._update_extreme(value, float("-inf"), "max_value")

    def compute(self) -> Tensor:
        """Return the largest number, a 0-dim tensor of the default dtype; -inf without data."""
        return self._as_result("max_value")


class MinMetric(_Extreme):
    """Smallest number of a stream.

    Args:
        nan_strategy: ``"warn"`` and ``"ignore"`` leave NaN out, ``"error"`` raises in ``compute``, ``"disable"`` lets
            NaN be the result, a float replaces them.
        **options: See `Metric`.

    Raises:
        MetricValueError: If ``nan_strategy`` is none of these.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MinMetric
        >>> metric = MinMetric()
        >>> metric.update(torch.tensor([1.0, 4.0]))
        >>> metric.update(2.0)
        >>> metric.compute()
        tensor(1.)
    """

    def __init__(self, nan_strategy: NanStrategy = "warn", **options: Any) -> None:
        super().__init__("min_value", float("inf"), "min", nan_strategy, **options)

    def update(self, value: float | Tensor) -> None:
        """Add numbers: one, or a tensor of any shape."""
        self._update_extreme(value, float("inf"), "min_value")

    def compute(self) -> Tensor:
        """Return the smallest number, a 0-dim tensor of the default dtype; inf without data."""
        return self._as_result("min_value")
