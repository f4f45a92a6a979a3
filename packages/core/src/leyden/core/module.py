# SPDX-License-Identifier: Apache-2.0
"""LightningModule: a model together with what one training step, one optimiser and one log line of it are."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.checkpoint.model import load_module, on_class_only
from leyden.core.errors import MisconfigurationException, warn
from leyden.core.exporters import find_exporter
from leyden.core.hparams import HyperparametersMixin
from leyden.core.interfaces import MetricLike, ReportLike
from leyden.core.module_hooks import ModuleHooks
from leyden.core.transfer import apply_to_tensors

if TYPE_CHECKING:
    from leyden.core.trainer import Trainer

Self = TypeVar("Self", bound="LightningModule")
ReduceName = Literal["mean", "sum", "min", "max"]


class RunView(Protocol):
    """What a module may ask of the run that it is part of."""

    trainer: Any

    def log(self, name: str, value: Any, flags: tuple[Any, ...], batch_size: int | None, attribute: str | None) -> None:
        """Take one logged value; ``flags`` are the arguments of `LightningModule.log` from ``prog_bar`` on."""

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run the hooks of backward and backward itself, under the run's precision."""


class LightningModule(ModuleHooks, HyperparametersMixin, nn.Module):
    """A model that says how it is trained.

    Define ``training_step`` and ``configure_optimizers``; everything else is optional. The class is an ordinary
    `torch.nn.Module` everywhere else.

    Examples:
        >>> import torch
        >>> from torch.nn import functional as F
        >>> import leyden.core as L
        >>> class Regression(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(4, 1)
        ...     def training_step(self, batch, batch_idx):
        ...         x, y = batch
        ...         loss = F.mse_loss(self.layer(x), y)
        ...         self.log("loss", loss)
        ...         return loss
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
    """

    # what torch.jit must not look at: these need a run
    __jit_unused_properties__ = [  # noqa: RUF012 - the name and the list are torch's protocol
        *("automatic_optimization", "strict_loading", "hparams", "hparams_initial", "device", "dtype", "on_gpu"),
        *("current_epoch", "global_step", "global_rank", "local_rank", "logger", "loggers", "trainer"),
    ]
    # one slot, typed by a Protocol, through which the module reaches the run; it never travels with copies or pickles
    _run: RunView | None = None
    _trainer: Any = None
    _fabric: Any = None
    example_input_array: Any = None
    _automatic_optimization = True
    _strict_loading: bool | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_run", "_trainer", "_fabric")}

    # -- where the run stands ------------------------------------------------------------------------------------------

    @property
    def trainer(self) -> Trainer:
        """The trainer that runs this module.

        Raises:
            RuntimeError: The module is not part of a run.
        """
        trainer: Trainer | None = self._trainer
        if trainer is None:
            raise RuntimeError(f"{type(self).__qualname__} is not attached to a `Trainer`.")
        return trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        for module in self.modules():
            if isinstance(module, LightningModule):
                module.__dict__["_trainer"] = trainer
                module.__dict__["_run"] = None if trainer is None else getattr(trainer, "_session", None)
                module.__dict__["_fabric"] = None

    @property
    def fabric(self) -> Any:
        """The `Fabric` whose loop runs this module, or None."""
        return self._fabric

    @fabric.setter
    def fabric(self, fabric: Any) -> None:
        for module in self.modules():
            if isinstance(module, LightningModule):
                module.__dict__["_fabric"] = fabric

    @property
    def current_epoch(self) -> int:
        """Number of the running epoch, from 0; 0 without a trainer."""
        return self._trainer.current_epoch if self._trainer is not None else 0

    @property
    def global_step(self) -> int:
        """Optimiser steps taken so far, over all epochs; 0 without a trainer."""
        return self._trainer.global_step if self._trainer is not None else 0

    @property
    def global_rank(self) -> int:
        """Rank of this process among all processes of the run."""
        return self._trainer.global_rank if self._trainer is not None else 0

    @property
    def local_rank(self) -> int:
        """Rank of this process on its machine."""
        return self._trainer.local_rank if self._trainer is not None else 0

    @property
    def logger(self) -> Any:
        """The first logger, or None."""
        return self._trainer.logger if self._trainer is not None else None

    @property
    def loggers(self) -> list[Any]:
        """All loggers."""
        return self._trainer.loggers if self._trainer is not None else []

    @property
    def device(self) -> torch.device:
        """Device of the first parameter or buffer; of the run where parameters wait elsewhere for their turn."""
        if self._trainer is not None and self._trainer.strategy.sharded:
            device: torch.device = self._trainer.strategy.root_device
            return device
        tensor = next(self.parameters(), next(self.buffers(), None))
        return tensor.device if tensor is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the first floating parameter or buffer."""
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.get_default_dtype()

    @property
    def on_gpu(self) -> bool:
        """Whether the module stands on a CUDA device."""
        return self.device.type == "cuda"

    @property
    def automatic_optimization(self) -> bool:
        """Whether the trainer runs backward and the optimisers; set it to False in ``__init__`` to do so yourself."""
        return self._automatic_optimization

    @automatic_optimization.setter
    def automatic_optimization(self, value: bool) -> None:
        self._automatic_optimization = value

    @property
    def strict_loading(self) -> bool:
        """Whether a checkpoint must have exactly the module's keys."""
        return True if self._strict_loading is None else self._strict_loading

    @strict_loading.setter
    def strict_loading(self, value: bool) -> None:
        self._strict_loading = value

    # -- steps -------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output of the model. The same as in `torch.nn.Module`."""
        return super().forward(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of one batch, or a dict with ``"loss"``, or None to skip the batch.

        Called as ``training_step(batch, batch_idx)``; ``batch_idx`` may be left out.
        """
        raise MisconfigurationException(
            f"{type(self).__qualname__} has no `training_step`: define it to use `trainer.fit`."
        )

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one validation batch: ``validation_step(batch, batch_idx[, dataloader_idx])``."""

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one test batch: ``test_step(batch, batch_idx[, dataloader_idx])``."""

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """Return the prediction for one batch; the default calls the module on the batch."""
        return self(args[0] if args else kwargs["batch"])

    def configure_optimizers(self) -> Any:
        """Return the optimiser, and its scheduler if there is one."""
        warn("LY-O001", "`LightningModule.configure_optimizers` returned `None`, this fit will run with no optimizer")

    def configure_callbacks(self) -> Any:
        """Return callbacks that belong to the model; they replace the trainer's of the same type."""
        return []

    def configure_model(self) -> None:
        """Make layers late, on the right device. May be called more than once."""

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients; the default does what the trainer's flags say."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step the optimiser. ``optimizer_closure`` runs the step, zero_grad and backward, and must be called."""
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Clear the gradients."""
        optimizer.zero_grad()

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a scheduler; ``metric`` is the monitored value, or None."""
        if metric is None:
            scheduler.step()
        else:
            scheduler.step(metric)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients of ``loss``."""
        if self._fabric is not None:
            self._fabric.backward(loss, *args, **kwargs)
        else:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]

    # -- logging -------------------------------------------------------------------------------------------------------

    def log(
        self,
        name: str,
        value: MetricLike | Tensor | float | int,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool | None = None,
        sync_dist_group: Any | None = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log one value under a name, at the step, over the epoch, or both.

        Args:
            name: Key of the value. With both ``on_step`` and ``on_epoch`` it becomes ``name_step`` and ``name_epoch``.
            value: A number, a tensor with one element, or a metric that is an attribute of the module.
            prog_bar: Whether the progress bar shows it.
            logger: Whether the loggers get it (None: yes).
            on_step: Whether it is logged at this step (None: yes in training steps, no elsewhere).
            on_epoch: Whether it is reduced over the epoch (None: no in training steps, yes elsewhere).
            reduce_fx: ``"mean"`` (weighted by batch size), ``"sum"``, ``"min"`` or ``"max"`` over the epoch.
            enable_graph: Whether the value keeps its autograd graph.
            sync_dist: Whether the value is reduced over processes (None: epoch values are).
            sync_dist_group: The process group to reduce over.
            add_dataloader_idx: Whether evaluation with several loaders appends the loader's index to the name.
            batch_size: Weight of this value in a mean over the epoch; inferred from the batch if None.
            metric_attribute: Name of the module's attribute that holds the metric, if it can not be found.
            rank_zero_only: Whether only the first process logs it; with several processes such a value can not be
                monitored.

        Raises:
            MisconfigurationException: The running hook does not support logging, or not with these arguments.
            ValueError: The value is no single number.
        """
        run = self._run
        if run is None:
            _not_attached()
            return
        run.log(
            name,
            value,
            (
                prog_bar,
                logger,
                on_step,
                on_epoch,
                reduce_fx,
                enable_graph,
                sync_dist,
                add_dataloader_idx,
                rank_zero_only,
                sync_dist_group,
            ),
            batch_size,
            metric_attribute,
        )

    def log_dict(
        self,
        dictionary: Mapping[str, Any] | MetricLike,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool | None = None,
        sync_dist_group: Any | None = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log every value of a dict, or every metric of a collection, as `log` does.

        Args:
            dictionary: Values by name, or a collection of metrics.
            prog_bar: See `log`, as for all that follow.
            logger: See `log`.
            on_step: See `log`.
            on_epoch: See `log`.
            reduce_fx: See `log`.
            enable_graph: See `log`.
            sync_dist: See `log`.
            sync_dist_group: See `log`.
            add_dataloader_idx: See `log`.
            batch_size: See `log`.
            rank_zero_only: See `log`.

        Raises:
            MisconfigurationException: As `log`.
            ValueError: As `log`.
        """
        run = self._run
        if run is None:
            _not_attached()
            return
        flags = (
            prog_bar,
            logger,
            on_step,
            on_epoch,
            reduce_fx,
            enable_graph,
            sync_dist,
            add_dataloader_idx,
            rank_zero_only,
            sync_dist_group,
        )
        if isinstance(dictionary, MetricLike):
            run.log("", dictionary, flags, batch_size, None)
            return
        for key, value in dictionary.items():
            run.log(key, value, flags, batch_size, None)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print in the first process only, without tearing the progress bar."""
        if self._trainer is None:
            print(*args, **kwargs)  # noqa: T201
        else:
            self._trainer.print(*args, **kwargs)

    # -- optimisation --------------------------------------------------------------------------------------------------

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """Return the optimiser, or the list of them if there are several."""
        found = self.trainer._step_optimizers if use_pl_optimizer else self.trainer.optimizers
        return found[0] if len(found) == 1 else found

    def lr_schedulers(self) -> Any:
        """Return the scheduler, the list of them if there are several, or None."""
        found = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        if not found:
            return None
        return found[0] if len(found) == 1 else found

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run backward from ``training_step`` when ``automatic_optimization`` is False.

        Args:
            loss: The loss.
            *args: Further arguments of `backward`; an optimiser, which the 1.0 API asked for, is not needed.
            **kwargs: Further arguments of `backward`.

        Raises:
            MisconfigurationException: The module leaves optimisation to the trainer.
        """
        args = tuple(argument for argument in args if not isinstance(argument, Optimizer))
        if self.automatic_optimization and self._fabric is None:
            raise MisconfigurationException(
                "`manual_backward` is for manual optimization: please disable automatic optimization with"
                " `self.automatic_optimization = False` in `__init__`."
            )
        if self._run is None:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
        else:
            self._run.backward(loss, *args, **kwargs)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of the parameters that ``optimizer`` steps.

        Args:
            optimizer: Whose parameters are meant.
            gradient_clip_val: Largest norm (or absolute value); None takes the trainer's flag.
            gradient_clip_algorithm: ``"norm"`` or ``"value"``; None takes the trainer's flag.

        Raises:
            MisconfigurationException: The algorithm is unknown, or the trainer's flag says something else.
        """
        trainer = self.trainer
        limit = _one_of("gradient_clip_val", trainer.gradient_clip_val, gradient_clip_val)
        how = _one_of("gradient_clip_algorithm", trainer.gradient_clip_algorithm, gradient_clip_algorithm) or "norm"
        if how not in ("norm", "value"):
            raise MisconfigurationException(
                f"`gradient_clip_algorithm` {how} is invalid. Allowed algorithms: ['value', 'norm']."
            )
        if limit is None or limit <= 0:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        trainer.strategy.clip_gradients(parameters, limit, how)

    def toggle_optimizer(self, optimizer: Optimizer) -> None:
        """Let only the parameters of ``optimizer`` require gradients until `untoggle_optimizer`."""
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        others = [p for p in self.parameters() if id(p) not in own]
        self.__dict__["_toggled"] = [(p, p.requires_grad) for p in others]
        for parameter in others:
            parameter.requires_grad = False

    def untoggle_optimizer(self, optimizer: Optimizer) -> None:
        """Undo `toggle_optimizer`."""
        for parameter, flag in self.__dict__.pop("_toggled", []):
            parameter.requires_grad = flag

    @contextmanager
    def toggled_optimizer(self, optimizer: Optimizer) -> Generator[None, None, None]:
        """Toggle ``optimizer`` for the length of a ``with`` block."""
        self.toggle_optimizer(optimizer)
        try:
            yield
        finally:
            self.untoggle_optimizer(optimizer)

    def freeze(self) -> None:
        """Stop all gradients and go into evaluation mode."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        self.eval()

    def unfreeze(self) -> None:
        """Let all parameters be trained and go into training mode."""
        for parameter in self.parameters():
            parameter.requires_grad = True
        self.train()

    def all_gather(self, data: Any, group: Any | None = None, sync_grads: bool = False) -> Any:
        """Gather tensors from all processes; with one process they are returned as they are.

        Args:
            data: Tensors in any nesting.
            group: The processes to gather from; None for all.
            sync_grads: Whether gradients flow back through the gathering.
        """
        strategy: Any = self._trainer.strategy if self._trainer is not None else None
        if strategy is None or strategy.world_size == 1:
            return data
        return apply_to_tensors(data, lambda tensor: strategy.all_gather(tensor, group=group, sync_grads=sync_grads))

    # -- files ---------------------------------------------------------------------------------------------------------

    def to_onnx(self, file_path: str | Path, input_sample: Any | None = None, **options: Any) -> ReportLike:
        """Export the module to ONNX and prove the export right; needs the distribution leyden-export.

        Args:
            file_path: Where to.
            input_sample: What the module is called with; None takes ``example_input_array``.
            **options: Options of ``leyden.export.export``.

        Returns:
            What was written and how it was verified.

        Raises:
            ValueError: There is no input to call the module with.
            MissingExtraError: leyden-export is not installed.
        """
        inputs = self.example_input_array if input_sample is None else input_sample
        if inputs is None:
            raise ValueError(
                "Could not export to ONNX since neither `input_sample` nor `model.example_input_array` attribute is"
                " set."
            )
        return find_exporter("onnx").export(self, Path(file_path), inputs, **options)

    @on_class_only
    @classmethod
    def load_from_checkpoint(
        cls: type[Self],
        checkpoint_path: str | os.PathLike[str] | IO[bytes],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Build the module from a checkpoint: its stored hyper-parameters, then its weights.

        Nothing in the file is executed.

        Args:
            checkpoint_path: The file: its path, or open for reading.
            map_location: Device for the weights, as in `torch.load`.
            hparams_file: A ``.yaml`` or ``.csv`` file whose hyper-parameters take the place of the stored ones.
            strict: Whether the keys must match exactly (None: ``strict_loading``).
            weights_only: False means ``trust=True``.
            trust: Whether a file that only code can rebuild may run that code. Only for files that you made.
            **kwargs: Arguments of ``__init__`` that override or complete the stored ones.

        Raises:
            CheckpointError: There is no such file, or an argument that could not be stored is missing.
            DamagedCheckpointError: The file does not match its checksums.
            MisconfigurationValueError: ``strict`` contradicts the module's ``strict_loading``.
            UnsafeCheckpointError: The file needs code to be rebuilt and ``trust`` is False.
        """
        return load_module(
            cls,
            checkpoint_path,
            map_location=map_location,
            hparams_file=hparams_file,
            strict=strict,
            trust=trust or weights_only is False,
            overrides=kwargs,
        )


def _one_of(name: str, flag: Any, given: Any) -> Any:
    """Return what a method was given or else the trainer's flag; both with different values contradict each other."""
    if flag is not None and given is not None and flag != given:
        raise MisconfigurationException(
            f"You have set `Trainer({name}={flag!r})` and have passed `clip_gradients({name}={given!r})`. Please use"
            " only one of them."
        )
    return flag if given is None else given


def _not_attached() -> None:
    frame = inspect.currentframe()
    caller = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    where = f" (in {caller.f_code.co_name})" if caller is not None else ""
    warn(
        "LY-B001",
        "You are trying to `self.log()` but the `self.trainer` reference is not registered on the model"
        f" yet{where}. This is"
        " most likely because the model hasn't been passed to the `Trainer`",
        stacklevel=4,
    )
