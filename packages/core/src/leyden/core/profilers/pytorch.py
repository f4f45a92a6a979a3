# SPDX-License-Identifier: Apache-2.0
"""PyTorchProfiler: what every operator cost, on the CPU and on the accelerator."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from weakref import ref

import torch
from torch import nn
from torch.autograd.profiler import EventList, record_function
from torch.profiler import ProfilerAction, ProfilerActivity, tensorboard_trace_handler

from leyden.core.errors import MisconfigurationValueError, warn
from leyden.core.profilers.profiler import Profiler
from leyden.core.profilers.schedule import STEPS, StepSchedule

_BATCHES = {
    "training_step": ("num_training_batches",),
    "validation_step": ("num_val_batches", "num_sanity_val_batches"),
    "test_step": ("num_test_batches",),
    "predict_step": ("num_predict_batches",),
}
_FEWEST_STEPS = 5  # wait, warm-up and three recorded steps of the default schedule


class RegisterRecordFunction:
    """Labels the forward pass of every submodule in a recording of torch's profiler, for the length of a ``with``.

    Args:
        model: The module.

    Examples:
        >>> import torch
        >>> from torch.profiler import profile
        >>> from leyden.core.profilers.pytorch import RegisterRecordFunction
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> with profile() as recorded, RegisterRecordFunction(model):
        ...     output = model(torch.rand(1, 2))
        >>> [event.name for event in recorded.events() if "module" in event.name]
        ['[pl][module]torch.nn.modules.linear.Linear: 0']
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._open: dict[str, list[record_function]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> RegisterRecordFunction:
        for name, module in self._model.named_modules():
            if name:
                label = f"[pl][module]{type(module).__module__}.{type(module).__name__}: {name}"
                self._handles.append(module.register_forward_pre_hook(partial(self._begin, label)))
                self._handles.append(module.register_forward_hook(partial(self._end, label), always_call=True))
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, label: str, *_: Any) -> None:
        record = record_function(label)
        record.__enter__()  # type: ignore[no-untyped-call]
        self._open.setdefault(label, []).append(record)

    def _end(self, label: str, *_: Any) -> None:
        if running := self._open.get(label):
            running.pop().__exit__(None, None, None)


class PyTorchProfiler(Profiler):
    """Records operators with `torch.profiler`; actions and submodules are labels among them.

    By default the second training step warms up and three steps are recorded, and the same of validation, test and
    prediction. A trace to open in Chrome or Perfetto is written into the folder when a recording ends.

    Args:
        dirpath: Folder of report and traces; the trainer's ``log_dir`` if None.
        filename: Name of the report, without ``.txt``. Without it, the report is logged and not written to a file.
        group_by_input_shapes: Whether calls with other input shapes are other rows; needs ``record_shapes=True``.
        emit_nvtx: Whether to emit NVTX ranges for NVIDIA's tools instead of recording.
        export_to_chrome: Whether to write traces.
        row_limit: Longest table; -1 for no limit.
        sort_by_key: Column by which the table is sorted; the total time of the CPU, or of CUDA where it is recorded.
        record_module_names: Whether the forward passes of submodules are labelled.
        table_kwargs: More arguments of the table, such as ``{"max_name_column_width": 80}``.
        **profiler_kwargs: Arguments of `torch.profiler.profile`, such as ``schedule``, ``activities``,
            ``profile_memory``, ``record_shapes``, ``on_trace_ready``; ``schedule=None`` records every step.

    Raises:
        MisconfigurationValueError: ``sort_by_key`` is unknown.
        MisconfigurationException: ``schedule`` is no schedule.
        KeyError: ``table_kwargs`` has a key that the table does not have, or that is an argument here.

    Attributes:
        profiler: Torch's profiler, while it runs.
        function_events: What was recorded, once the report was asked for.

    Examples:
        >>> import torch
        >>> from leyden.core.profilers import PyTorchProfiler
        >>> profiler = PyTorchProfiler(schedule=None, row_limit=5)
        >>> with profiler.profile("add"):
        ...     total = torch.ones(2) + 1
        >>> "aten::add" in profiler.summary()
        True
    """

    STEP_FUNCTIONS: ClassVar[set[str]] = set(STEPS)
    AVAILABLE_SORT_KEYS: ClassVar[set[str]] = {
        *(f"{device}_time{total}" for device in ("cpu", "cuda") for total in ("", "_total")),
        *(f"{own}{device}_memory_usage" for device in ("cpu", "cuda") for own in ("", "self_")),
        "count",
    }

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        group_by_input_shapes: bool = False,
        emit_nvtx: bool = False,
        export_to_chrome: bool = True,
        row_limit: int = 20,
        sort_by_key: str | None = None,
        record_module_names: bool = True,
        table_kwargs: dict[str, Any] | None = None,
        **profiler_kwargs: Any,
    ) -> None:
        super().__init__(dirpath=dirpath, filename=filename)
        self._by_shapes = group_by_input_shapes and profiler_kwargs.get("record_shapes", False)
        self._emit_nvtx, self._export_to_chrome = emit_nvtx, export_to_chrome
        self._row_limit, self._record_module_names = row_limit, record_module_names
        self._table_kwargs = table_kwargs or {}
        kwargs = dict(profiler_kwargs)
        self._default_schedule = "schedule" not in kwargs
        given = kwargs.pop("schedule", None)
        if self._default_schedule:
            given = _second_to_fifth
        self._schedule = None if given is None else StepSchedule(given)
        kwargs["activities"] = kwargs.get("activities") or _activities()
        self._flame_graph, self._metric = kwargs.pop("export_to_flame_graph", False), kwargs.pop("metric", None)
        kwargs["with_stack"] = bool(kwargs.get("with_stack") or self._flame_graph)
        self._kwargs = kwargs
        device = "cuda" if ProfilerActivity.CUDA in kwargs["activities"] else "cpu"
        self._sort_by_key = sort_by_key or f"{device}_time_total"
        self._check_table()
        self.profiler: Any = None
        self.function_events: EventList | None = None
        self._always = False
        self._module: ref[nn.Module] | None = None
        self._labels: RegisterRecordFunction | None = None
        self._around: AbstractContextManager[Any] | None = None
        self._running: dict[str, record_function] = {}

    def _check_table(self) -> None:
        if self._sort_by_key not in self.AVAILABLE_SORT_KEYS:
            raise MisconfigurationValueError(
                f"Found sort_by_key: {self._sort_by_key}. Should be within {sorted(self.AVAILABLE_SORT_KEYS)}."
            )
        known = set(inspect.signature(EventList.table).parameters) - {"self", "sort_by", "row_limit"}
        for key in self._table_kwargs:
            if key in ("sort_by", "row_limit"):
                raise KeyError(
                    f"Found invalid table_kwargs key: {key}. This is already a positional argument of the Profiler."
                )
            if key not in known:
                raise KeyError(f"Found invalid table_kwargs key: {key}. Should be within {sorted(known)}.")

    def __getstate__(self) -> dict[str, Any]:
        # neither a running recording nor a reference to the module can be copied
        gone: dict[str, Any] = {"profiler": None, "_module": None, "_labels": None, "_around": None, "_running": {}}
        return {**self.__dict__, **gone}

    def watch(self, module: nn.Module) -> None:
        """Learn before `setup` which module the run is about."""
        self._module = ref(module)

    # -- recording -----------------------------------------------------------------------------------------------------

    def start(self, action_name: str) -> None:
        """Begin an action, and the recording with the first one."""
        if self.profiler is None:
            self._open()
        module = self._module() if self._module is not None else None
        if module is not None and self._labels is None and self._record_module_names:
            self._labels = RegisterRecordFunction(module).__enter__()
        if action_name not in self._running:
            record = record_function(f"[pl][profile]{action_name}")
            record.__enter__()  # type: ignore[no-untyped-call]
            self._running[action_name] = record

    def stop(self, action_name: str) -> None:
        """End an action; after a step, the schedule decides what is recorded next."""
        if (record := self._running.pop(action_name, None)) is not None:
            record.__exit__(None, None, None)
        step = next((name for name in STEPS if action_name.endswith(name)), None)
        if step is None or self.profiler is None or self._emit_nvtx:
            return
        if self._schedule is not None and not self._always:
            self._schedule.step = step
            if self._default_schedule and self._batches(step) < _FEWEST_STEPS:
                self._record_everything()
        if "on_trace_ready" not in self._kwargs:
            self.profiler.on_trace_ready = self._exporter(action_name)
        self.profiler.step()
        self.profiler.add_metadata("Framework", "pytorch-lightning")

    def _open(self) -> None:
        # torch has one recording at a time, and refuses a second one while somebody has not ended the first
        if torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            torch.autograd._disable_profiler()  # type: ignore[attr-defined]
        if self._emit_nvtx:
            self._around = torch.cuda.profiler.profile()
            self._around.__enter__()
            self.profiler = torch.autograd.profiler.emit_nvtx()  # type: ignore[no-untyped-call]
        else:
            self.profiler = torch.profiler.profile(schedule=self._schedule, **self._kwargs)
        self.profiler.__enter__()

    def _batches(self, step: str) -> float:
        module = self._module() if self._module is not None else None
        if module is None:
            return float("inf")
        counts = [getattr(module.trainer, name, 0) for name in _BATCHES[step]]
        return sum(sum(count) if isinstance(count, list) else count for count in counts)

    def _record_everything(self) -> None:
        warn(
            "LY-P002",
            "The PyTorch Profiler default schedule will be overridden as there is not enough steps to properly record"
            " traces: every step is recorded.",
        )
        self._always = True
        self.profiler.schedule = _always

    def _exporter(self, action_name: str) -> Callable[[Any], None]:
        def export(profiler: Any) -> None:
            if self.dirpath is None:
                warn("LY-P002", "The PyTorchProfiler failed to export trace as `dirpath` is None.")
                return
            if self._export_to_chrome:
                tensorboard_trace_handler(str(self.dirpath), self._prepare_filename(action_name, ""))(profiler)
            if self._flame_graph:
                path = Path(self.dirpath) / self._prepare_filename(action_name, ".stack")
                profiler.export_stacks(str(path), metric=self._metric or "self_cpu_time_total")

        return export

    # -- the report ----------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """End the recording, and return the table of its operators."""
        self._close()
        if not self.function_events:
            return ""
        rows = self.function_events.key_averages(group_by_input_shapes=self._by_shapes)  # type: ignore[no-untyped-call]
        table = rows.table(sort_by=self._sort_by_key, row_limit=self._row_limit, **self._table_kwargs)
        return self._sections({"records": table})

    def teardown(self, stage: str | None) -> None:
        """End the recording, also after an exception."""
        for record in self._running.values():
            record.__exit__(None, None, None)
        self._running = {}
        self._close()

    def _close(self) -> None:
        profiler, self.profiler = self.profiler, None
        if profiler is not None:
            profiler.__exit__(None, None, None)
            # a schedule that never began to record leaves torch's profiler without anything to ask
            if not self._emit_nvtx and profiler.profiler is not None:
                self.function_events = profiler.events()
        if self._schedule is not None:
            self._schedule.reset()
        self._always = False
        if self._around is not None:
            self._around.__exit__(None, None, None)
            self._around = None
        if self._labels is not None:
            self._labels.__exit__()
            self._labels = None


def _second_to_fifth(step: int) -> ProfilerAction:
    """Wait, warm up, record three steps; a function of the module, since what torch makes can not be pickled."""
    cycle = (ProfilerAction.NONE, ProfilerAction.WARMUP, ProfilerAction.RECORD, ProfilerAction.RECORD)
    return ProfilerAction.RECORD_AND_SAVE if step % 5 == 4 else cycle[step % 5]


def _always(step: int) -> ProfilerAction:
    return ProfilerAction.RECORD


def _activities() -> list[ProfilerActivity]:
    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *cuda]
