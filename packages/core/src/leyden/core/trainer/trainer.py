# SPDX-License-Identifier: Apache-2.0
"""The Trainer: flags and verbs."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.callback import Callback
from leyden.core.callbacks.timer import Timer
from leyden.core.checkpoint.writer import Writer
from leyden.core.datamodule import LightningDataModule
from leyden.core.errors import (
    WARNED,
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    warn,
)
from leyden.core.flags import Flags
from leyden.core.interfaces import LoggerLike
from leyden.core.loggers.choice import default_logger, find_logger
from leyden.core.loggers.dummy import DummyLogger
from leyden.core.module import LightningModule
from leyden.core.profilers.choice import find_profiler
from leyden.core.profilers.profiler import PassThroughProfiler, Profiler
from leyden.core.progress import Progress
from leyden.core.session import Session
from leyden.core.states import TrainerFn, TrainerState
from leyden.core.strategies.parallel import Timeout
from leyden.core.strategies.strategy import Strategy
from leyden.core.table import render
from leyden.core.trainer.afresh import remember
from leyden.core.trainer.barebones import refuse_beside_barebones
from leyden.core.trainer.launching import launch, refuse_to_stream
from leyden.core.trainer.loops import EvaluationLoop, FitLoop
from leyden.core.trainer.outfit import outfit, replaced
from leyden.core.trainer.process import set_torch_flags, settings
from leyden.core.trainer.readings import Readings
from leyden.core.trainer.run import run, save_checkpoint, stream_predictions
from leyden.core.trainer.spellings import from_elsewhere


class Trainer(Readings):
    """Runs a module: trains it, evaluates it, predicts with it, saves it and goes on where it was.

    Args:
        accelerator: Kind of device: ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"``, ``"xpu"``, ``"tpu"``, ``"auto"``, a
            registered name, or its object.
        strategy: How a run spreads over devices: ``"ddp"`` and its forms, ``"fsdp"``, ``"dp"``, ``"single_device"``, a
            registered name, or its object. ``"auto"`` is ddp for several devices.
        devices: How many devices on each machine, -1 for all, or which: ``[0, 2]`` or ``"0,2"``.
        num_nodes: How many machines.
        precision: Number format: ``"32-true"``, ``"64-true"``, ``"bf16-true"``, ``"16-true"``, ``"bf16-mixed"``,
            ``"16-mixed"`` or ``"fp8"``.
        logger: True for TensorBoard if it is installed and CSV files otherwise, False for none, a logger, its short
            name such as ``"csv"``, or several.
        callbacks: One callback or several.
        fast_dev_run: Run n batches of everything (True: one) to try the code; nothing is logged or saved.
        max_epochs: Epochs to train; -1 for no limit, None for 1000 unless ``max_steps`` is given.
        min_epochs: Epochs before which ``should_stop`` is not heeded.
        max_steps: Optimiser steps to train; -1 for no limit.
        min_steps: Optimiser steps before which ``should_stop`` is not heeded.
        max_time: Time after which training ends: ``"12h"``, ``"DD:HH:MM:SS"``, a timedelta or a dict of its arguments.
        limit_train_batches: How much of an epoch: an int counts batches, a float is a fraction.
        limit_val_batches: As ``limit_train_batches``, per validation loader.
        limit_test_batches: As ``limit_train_batches``, per test loader.
        limit_predict_batches: As ``limit_train_batches``, per prediction loader.
        val_check_interval: Validate every this fraction of an epoch (float), number of batches (int) or time (as
            ``max_time``).
        check_val_every_n_epoch: Validate in every n-th epoch; None counts ``val_check_interval`` over epochs.
        num_sanity_val_steps: Validation batches tried before training; -1 for all.
        log_every_n_steps: Steps between two rows of step values; 0 for none.
        enable_checkpointing: Whether a `ModelCheckpoint` is added if none is given.
        enable_progress_bar: Whether a progress bar is added if none is given.
        enable_model_summary: Whether a summary of the model is printed.
        accumulate_grad_batches: Batches per optimiser step. A window that an epoch's end cuts short counts as what
            it is.
        gradient_clip_val: Largest norm of the gradient (or absolute value); None does not clip.
        gradient_clip_algorithm: ``"norm"`` or ``"value"``.
        deterministic: True for deterministic algorithms only, ``"warn"`` to warn where there are none.
        inference_mode: Whether evaluation runs in `torch.inference_mode` instead of `torch.no_grad`.
        overfit_batches: Train and validate on this many batches (or this fraction), in the data set's order.
        reload_dataloaders_every_n_epochs: Ask for the loaders again every so many epochs; 0 for never.
        benchmark: Whether cuDNN tries its algorithms out; None leaves it as it is.
        use_distributed_sampler: Whether several processes split the data of loaders that do not split it themselves.
        sync_batchnorm: Whether batch normalisation takes its statistics from all processes.
        barebones: Whether to switch off everything that costs time: logging, checkpoints, bar, summary, sanity check.
        enable_autolog_hparams: Whether hyper-parameters are logged when a fit begins.
        detect_anomaly: Whether autograd looks for operations that produce NaN.
        profiler: What measures the run: ``"simple"``, ``"advanced"``, ``"pytorch"``, or a profiler.
        compile: Whether `torch.compile` compiles the training step's computation and the optimiser's step, or a dict of
            its arguments (``backend``, ``mode``, ``dynamic``, ...). Hooks stay eager, and checkpoints keep their keys.
        timeout: How long processes wait for each other, in seconds or as a timedelta, or a pair: until the first step
            is done, and from then on. None for 30 and 10 minutes.
        uneven: What happens where processes have different numbers of training batches, as of iterable data sets:
            ``"stop"`` ends the epoch for all with the first that has none, ``"pad"`` gives batches again, ``"join"``
            lets who has none rest.
        on_nonfinite: What happens where a loss is infinite or no number: ``"raise"`` ends the run with a
            `NonFiniteError`, ``"skip"`` leaves the batch out (and a step whose gradients are not finite), ``"ignore"``
            trains on.
        max_failed_saves: How many saves in a row may fail, as on a full disk, until that ends the run; 1 for the first.
        async_save: Whether files are written beside the training, which stops only for the copy of the state.
        exact: Whether a resumed run goes on to the same bits: True seeds each batch of map-style loaders and warns
            where more is not possible, ``"refuse"`` raises there, False leaves the seeds out.
        strict: Whether an error in a logger, progress bar or monitor ends the run, which it otherwise does not; None
            for what the environment variable ``LEYDEN_STRICT`` says.
        activation_checkpointing: Computes activations again in the backward pass instead of keeping them: True for
            every repeated block, a list of module classes, or a function that tells for a module.
        default_root_dir: Where files go that nobody else places; the working folder if None.
        model_registry: Name of a model in a registry that no part of this package talks to; taken and kept.
        suggest_integrations: Whether other packages may be suggested; nothing is.

    Where epochs, batches or steps are counted, a text with a unit works too: ``max_epochs="10ep"``,
    ``max_steps="500st"``, ``limit_val_batches="20ba"``, ``val_check_interval="0.25ep"``.

    A flag that is not given is taken from the environment: ``LEYDEN_TRAINER_<FLAG>``, else ``PL_TRAINER_<FLAG>``.

    Raises:
        MisconfigurationException: A flag has a value that is not allowed; the message names it and what is.

    Examples:
        >>> import leyden.core as L
        >>> trainer = L.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> trainer.max_epochs
        3
    """

    # what only the spellings of the 1.0 API set
    _resume_from: str | os.PathLike[str] | None = None
    _automatic_optimization: bool | None = None

    @from_elsewhere
    def __init__(
        self,
        *,
        accelerator: str | Accelerator = "auto",
        strategy: str | Strategy = "auto",
        devices: int | str | Sequence[int] = "auto",
        num_nodes: int = 1,
        precision: int | str | None = None,
        logger: bool | str | LoggerLike | Iterable[LoggerLike | str] | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        fast_dev_run: int | bool = False,
        max_epochs: int | str | None = None,
        min_epochs: int | str | None = None,
        max_steps: int | str = -1,
        min_steps: int | str | None = None,
        max_time: str | timedelta | dict[str, int] | None = None,
        limit_train_batches: float | int | str | None = None,
        limit_val_batches: float | int | str | None = None,
        limit_test_batches: float | int | str | None = None,
        limit_predict_batches: float | int | str | None = None,
        val_check_interval: float | int | str | timedelta | dict[str, int] | None = None,
        check_val_every_n_epoch: int | str | None = 1,
        num_sanity_val_steps: int | str | None = None,
        log_every_n_steps: int | str | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool | None = None,
        accumulate_grad_batches: int | str = 1,
        gradient_clip_val: float | int | None = None,
        gradient_clip_algorithm: str | None = None,
        deterministic: bool | str | None = None,
        inference_mode: bool = True,
        overfit_batches: float | int | str = 0.0,
        reload_dataloaders_every_n_epochs: int | str = 0,
        benchmark: bool | None = None,
        use_distributed_sampler: bool = True,
        sync_batchnorm: bool = False,
        barebones: bool = False,
        enable_autolog_hparams: bool = True,
        detect_anomaly: bool = False,
        profiler: Profiler | str | None = None,
        compile: bool | dict[str, Any] = False,
        timeout: Timeout = None,
        uneven: Literal["stop", "pad", "join"] = "stop",
        on_nonfinite: Literal["raise", "skip", "rollback", "ignore"] = "raise",
        max_failed_saves: int = 3,
        async_save: bool = False,
        exact: bool | Literal["refuse"] = True,
        strict: bool | None = None,
        activation_checkpointing: Any = False,
        plugins: Any = None,
        default_root_dir: str | os.PathLike[str] | None = None,
        model_registry: str | None = None,
        suggest_integrations: bool = True,
    ) -> None:
        if barebones:
            refuse_beside_barebones(
                enable_checkpointing=enable_checkpointing,
                logger=logger,
                enable_progress_bar=enable_progress_bar,
                log_every_n_steps=log_every_n_steps,
                enable_model_summary=enable_model_summary,
                num_sanity_val_steps=num_sanity_val_steps,
                fast_dev_run=fast_dev_run,
                detect_anomaly=detect_anomaly,
                profiler=profiler,
            )
            logger = enable_checkpointing = enable_progress_bar = enable_model_summary = False
            log_every_n_steps = num_sanity_val_steps = 0
        make: Any = Flags  # it reads texts with a unit, which its fields do not hold
        self.flags = make(
            accelerator=accelerator,
            strategy=strategy,
            devices=devices,
            num_nodes=num_nodes,
            precision=precision,
            plugins=plugins,
            fast_dev_run=fast_dev_run,
            max_epochs=max_epochs,
            min_epochs=min_epochs,
            max_steps=max_steps,
            min_steps=min_steps,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            val_check_interval=1.0 if val_check_interval is None else val_check_interval,
            check_val_every_n_epoch=check_val_every_n_epoch,
            num_sanity_val_steps=2 if num_sanity_val_steps is None else num_sanity_val_steps,
            log_every_n_steps=50 if log_every_n_steps is None else log_every_n_steps,
            accumulate_grad_batches=accumulate_grad_batches,
            gradient_clip_val=gradient_clip_val,
            gradient_clip_algorithm=gradient_clip_algorithm,
            inference_mode=inference_mode,
            overfit_batches=overfit_batches,
            reload_dataloaders_every_n_epochs=reload_dataloaders_every_n_epochs,
            barebones=barebones,
            compile=compile,
            timeout=timeout,
            uneven=uneven,
            on_nonfinite=on_nonfinite,
            max_failed_saves=max_failed_saves,
            async_save=async_save,
            exact=exact,
            strict=strict,
            activation_checkpointing=activation_checkpointing,
            use_distributed_sampler=use_distributed_sampler,
        )
        self.use_distributed_sampler, self.sync_batchnorm = use_distributed_sampler, sync_batchnorm
        self.enable_autolog_hparams, self._benchmark = enable_autolog_hparams, benchmark
        if deterministic not in (None, True, False, "warn"):
            raise MisconfigurationValueError(f"`deterministic` must be True, False or 'warn'; got {deterministic!r}.")
        set_torch_flags(deterministic, benchmark)
        if default_root_dir is not None and not isinstance(default_root_dir, (str, os.PathLike)):
            raise MisconfigurationTypeError(f"`default_root_dir` must be a path; got {default_root_dir!r}.")
        self.detect_anomaly = detect_anomaly
        self._profiler = find_profiler(profiler)
        self._default_root_dir = str(Path.cwd()) if default_root_dir is None else os.fspath(default_root_dir)
        self._model_registry = model_registry.split(":")[0] if model_registry else None
        self.loggers = self._make_loggers(logger)
        given: Any = callbacks
        self.callbacks = outfit(
            list(given or ()) if isinstance(given, (list, tuple, NoneType)) else [given],
            max_time=max_time,
            checkpointing=enable_checkpointing,
            bar=enable_progress_bar,
            summary=enable_model_summary,
        )
        self.state = TrainerState()
        self.should_stop = False
        self._deterministic = deterministic
        self._progress = Progress()
        self._run_id = secrets.token_hex(8)
        self._session: Session | None = None
        self._module: LightningModule | None = None
        self._ckpt_path = self._managed_path = None
        self._taken = {}
        self.fit_loop = FitLoop(self)
        self.validate_loop = EvaluationLoop(self, TrainerFn.VALIDATING, "val")
        self.test_loop = EvaluationLoop(self, TrainerFn.TESTING, "test")
        self.predict_loop = EvaluationLoop(self, TrainerFn.PREDICTING, "predict")
        self._fitted: LightningModule | None = None
        self._first_states: list[Callable[[], None]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # a trainer that goes to other processes takes its flags and callbacks along, and not the run
        return {**self.__dict__, "_session": None, "_module": None, "_fitted": None, "_first_states": None}

    # -- putting together ----------------------------------------------------------------------------------------------

    def _make_loggers(self, logger: Any) -> list[LoggerLike]:
        if self.flags.fast_dev_run:
            return [DummyLogger()] if logger is not False else []
        if logger is None or logger is True:
            return [default_logger(self.default_root_dir)]
        if logger is False:
            return []
        several = isinstance(logger, Iterable) and not isinstance(logger, str) and not hasattr(logger, "log_metrics")
        return [self._logger(item) for item in (logger if several else [logger])]

    def _logger(self, given: Any) -> LoggerLike:
        if isinstance(given, str):
            kind: Any = find_logger(given)
            made: LoggerLike = kind(self.default_root_dir)
            return made
        if isinstance(given, type) or not hasattr(given, "log_metrics"):
            raise MisconfigurationTypeError(
                f"`logger` must be True, False, a logger, the short name of one, or several; got {given!r}."
            )
        logger: LoggerLike = given
        return logger

    def _wire(self, model: Any, datamodule: Any, fn: TrainerFn) -> Session:
        if not isinstance(model, LightningModule):
            raise MisconfigurationTypeError(f"`model` must be a `LightningModule`, got `{type(model).__qualname__}`")
        if datamodule is not None and not isinstance(datamodule, LightningDataModule):
            raise MisconfigurationTypeError(
                f"`datamodule` must be a `LightningDataModule`, got `{type(datamodule).__qualname__}`"
            )
        WARNED.clear()
        if fn == TrainerFn.FITTING:
            self.flags.settle_limits(timed=any(isinstance(c, Timer) for c in self.callbacks))
            if self._first_states is None:
                self._first_states = remember(self.callbacks)
            if model is not self._fitted and self._progress.batches:
                self._begin_afresh()
            self._fitted = model
        self._module = model
        session = Session(self, model, datamodule, self.callbacks, self.loggers, self._progress)
        session.book.enabled = not self.flags.barebones
        self._session = session
        model.trainer = self
        if datamodule is not None:
            datamodule.trainer = self
        scope = session.book.enter("configure_callbacks")
        own = model.configure_callbacks()
        session.book.leave(scope)
        self._attach(session, [own] if isinstance(own, Callback) else list(own or ()))
        for callback in self.callbacks:
            callback.log, callback.log_dict = model.log, model.log_dict  # type: ignore[attr-defined]
        return session

    def _attach(self, session: Session, own: list[Callback]) -> None:
        """Let the module's callbacks take the place of the trainer's of the same type."""
        if own:
            self.callbacks = replaced(self.callbacks, own)
            session.callbacks = list(self.callbacks)
            session.hooks.callbacks = session.callbacks
            session.hooks.compile()

    def _begin_afresh(self) -> None:
        self._progress = Progress()
        self._run_id = secrets.token_hex(8)
        self.should_stop = False
        for restore in self._first_states or ():
            restore()
        for logger in self.loggers:
            if hasattr(logger, "new_run"):
                logger.new_run()

    def _settings(self) -> AbstractContextManager[None]:
        return settings(self._deterministic, self._benchmark, anomaly=self.detect_anomaly)

    @contextmanager
    def init_module(self, empty_init: bool | None = None) -> Generator[None, None, None]:
        """Make modules on the device of the run, so that they need not be moved.

        Args:
            empty_init: Whether parameters stay as the memory was, which saves time where a checkpoint fills them.

        Examples:
            >>> import torch
            >>> import leyden.core as L
            >>> trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False)
            >>> with trainer.init_module(empty_init=True):
            ...     layer = torch.nn.Linear(2, 2)
            >>> layer.weight.device
            device(type='cpu')
        """
        with self.strategy.tensor_init_context(empty_init=empty_init):
            yield

    @property
    def profiler(self) -> Profiler:
        """What measures the run; one that does nothing if none was asked for."""
        return self._profiler or PassThroughProfiler()

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Train a module.

        Args:
            model: What to train.
            train_dataloaders: Training batches: any iterable, or a `LightningDataModule`. If None, the data module's or
                the module's ``train_dataloader`` is asked.
            val_dataloaders: Validation batches: an iterable, or a list or dict of them.
            datamodule: Where all loaders come from.
            ckpt_path: Go on from a checkpoint: a path, ``"last"``, ``"best"``, or ``"auto"`` for the newest valid
                one of the newest unfinished run of this model; ``"auto"`` starts afresh where there is none.
            weights_only: False lets a checkpoint that only code can rebuild run that code. Only for files you made.

        Raises:
            MisconfigurationException: Something that training needs is missing or does not fit.
            CheckpointError: ``ckpt_path`` can not be used.
            Interrupted: A signal ended the run, after its state was saved.
        """
        train_dataloaders, datamodule = _data_module_first(
            TrainerFn.FITTING, train_dataloaders, datamodule, val_dataloaders
        )
        if ckpt_path is None:
            ckpt_path = self._managed_path or self._resume_from
        loaders = {"train": train_dataloaders, "val": val_dataloaders}
        launch(self, TrainerFn.FITTING, model, datamodule, loaders, ckpt_path, trust=weights_only is False)

    def _do(
        self, fn: TrainerFn, model: Any, datamodule: Any, loaders: dict[str, Any], path: Any, **options: Any
    ) -> Any:
        """Run a verb in this process."""
        session = self._wire(model, datamodule, fn)
        if fn == TrainerFn.FITTING:
            self.should_stop = False
            if self._automatic_optimization is not None:
                model.automatic_optimization = self._automatic_optimization
        with self._settings():
            return run(session, fn, loaders, path, **options)

    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[dict[str, float]]:
        """Run one pass over validation data.

        Args:
            model: What to evaluate; None takes the model of the last call, with the best checkpoint's weights.
            dataloaders: The batches: an iterable, a list or dict of them, or a `LightningDataModule`.
            ckpt_path: Weights to load first: a path, ``"best"`` or ``"last"``.
            verbose: Whether to print the results.
            datamodule: Where the loaders come from.
            weights_only: As in `fit`.

        Returns:
            The logged values, one dict per loader.

        Raises:
            MisconfigurationException: Something that evaluation needs is missing.
        """
        return self._evaluate(
            TrainerFn.VALIDATING, "val", model, dataloaders, ckpt_path, verbose, datamodule, weights_only is False
        )

    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[dict[str, float]]:
        """Run one pass over test data.

        Args:
            model: What to evaluate; None takes the model of the last call, with the best checkpoint's weights.
            dataloaders: The batches: an iterable, a list or dict of them, or a `LightningDataModule`.
            ckpt_path: Weights to load first: a path, ``"best"`` or ``"last"``.
            verbose: Whether to print the results.
            datamodule: Where the loaders come from.
            weights_only: As in `fit`.

        Returns:
            The logged values, one dict per loader.

        Raises:
            MisconfigurationException: Something that evaluation needs is missing.
        """
        return self._evaluate(
            TrainerFn.TESTING, "test", model, dataloaders, ckpt_path, verbose, datamodule, weights_only is False
        )

    def _evaluate(
        self,
        fn: TrainerFn,
        kind: str,
        model: Any,
        dataloaders: Any,
        ckpt_path: Any,
        verbose: bool,
        datamodule: Any,
        trust: bool,
    ) -> list[dict[str, float]]:
        model, ckpt_path = self._model_of(fn, model, ckpt_path)
        dataloaders, datamodule = _data_module_first(fn, dataloaders, datamodule, None)
        results: list[dict[str, float]] = launch(
            self, fn, model, datamodule, {kind: dataloaders}, ckpt_path, verbose=verbose, trust=trust
        )
        return results

    def predict(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        return_predictions: bool | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool | None = None,
    ) -> Any:
        """Run the model on data.

        Args:
            model: What to predict with; None takes the model of the last call, with the best checkpoint's weights.
            dataloaders: The batches: an iterable, a list or dict of them, or a `LightningDataModule`.
            datamodule: Where the loaders come from.
            return_predictions: Whether the outputs are returned (None: yes).
            ckpt_path: Weights to load first: a path, ``"best"`` or ``"last"``.
            weights_only: As in `fit`.

        Returns:
            The outputs batch by batch, on the CPU; one such list per loader if there are several; None if not wanted.

        Raises:
            MisconfigurationException: Something that prediction needs is missing.
        """
        model, ckpt_path = self._model_of(TrainerFn.PREDICTING, model, ckpt_path)
        dataloaders, datamodule = _data_module_first(TrainerFn.PREDICTING, dataloaders, datamodule, None)
        keep, given, trust = return_predictions is not False, {"predict": dataloaders}, weights_only is False
        return launch(
            self, TrainerFn.PREDICTING, model, datamodule, given, ckpt_path, return_predictions=keep, trust=trust
        )

    def predict_iter(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool | None = None,
    ) -> Generator[Any, None, None]:
        """Run the model on data and give each output as soon as it is made, so that nothing piles up in memory.

        Args:
            model: As in `predict`.
            dataloaders: As in `predict`.
            datamodule: As in `predict`.
            ckpt_path: As in `predict`.
            weights_only: As in `fit`.

        Yields:
            The output of each batch, on its device; several loaders follow each other.

        Raises:
            MisconfigurationException: Something that prediction needs is missing.

        Examples:
            >>> import torch
            >>> import leyden.core as L
            >>> class Double(L.LightningModule):
            ...     def forward(self, batch):
            ...         return 2 * batch
            >>> trainer = L.Trainer(max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False)
            >>> [int(out.sum()) for out in trainer.predict_iter(Double(), [torch.ones(2), torch.ones(3)])]
            [4, 6]
        """
        refuse_to_stream(self)
        model, ckpt_path = self._model_of(TrainerFn.PREDICTING, model, ckpt_path)
        dataloaders, datamodule = _data_module_first(TrainerFn.PREDICTING, dataloaders, datamodule, None)
        session = self._wire(model, datamodule, TrainerFn.PREDICTING)
        with self._settings():
            yield from stream_predictions(session, {"predict": dataloaders}, ckpt_path, trust=weights_only is False)

    def _model_of(self, fn: TrainerFn, model: Any, ckpt_path: Any) -> tuple[Any, Any]:
        ckpt_path = self._managed_path if ckpt_path is None else ckpt_path
        if model is not None:
            return model, ckpt_path
        if self._module is None:
            raise TypeError(
                f"`Trainer.{fn}()` requires a `LightningModule` when it hasn't been passed in a previous run"
            )
        if ckpt_path is None:
            warn(
                "LY-T013",
                f"`.{fn}(ckpt_path=None)` was called without a model. The best model of the previous `fit` call will be"
                f" used. You can pass `.{fn}(ckpt_path='best')` to use the best model or `.{fn}(ckpt_path='last')` to"
                " use the last one, or the model itself to take it as it is.",
            )
            ckpt_path = "best"
        return self._module, ckpt_path

    def save_checkpoint(self, filepath: str | os.PathLike[str], weights_only: bool = False) -> None:
        """Write the state of the run to a file, durably; with ``async_save``, beside a training that is under way.

        Args:
            filepath: Where to.
            weights_only: Whether to leave out optimisers, schedulers and callbacks.

        Raises:
            AttributeError: No model was given to the trainer yet.
            CheckpointError: The file can not be written.
        """
        if self._session is None:
            raise AttributeError(
                "Saving a checkpoint is only possible if a model is attached to the Trainer. Did you call"
                " `Trainer.save_checkpoint()` before calling `Trainer.{fit,validate,test,predict}`?"
            )
        save_checkpoint(self._session, Path(filepath), weights_only=weights_only)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without tearing the progress bar, in the first process alone."""
        if not self.is_global_zero:
            return
        bar = self.progress_bar_callback
        if bar is not None:
            bar.print(*args, **kwargs)
        else:
            print(*args, **kwargs)  # noqa: T201

    @property
    def _saves(self) -> Writer:
        assert self._session is not None
        return self._session.saves

    def _say(self, message: str) -> None:
        if self.is_global_zero:
            print(f"[leyden] {message}", file=sys.stderr)  # noqa: T201

    def _print_results(self, results: list[dict[str, float]], verb: str, names: list[str | None]) -> None:
        rows = [{k.removesuffix(f"/dataloader_idx_{i}"): v for k, v in row.items()} for i, row in enumerate(results)]
        keys = sorted({key for row in rows for key in row})
        if keys and self.is_global_zero:
            titles = [name or f"DataLoader {i}" for i, name in enumerate(names)]
            cells = [(key, *(str(row.get(key, "")) for row in rows)) for key in keys]
            print(render((f"{verb.capitalize()} metric", *titles), cells))  # noqa: T201


def _data_module_first(fn: TrainerFn, loaders: Any, datamodule: Any, others: Any) -> tuple[Any, Any]:
    """Let a data module stand in the place of loaders.

    Raises:
        MisconfigurationException: Both loaders and a data module were given.
    """
    if isinstance(loaders, LightningDataModule):
        loaders, datamodule = None, loaders
    if datamodule is not None and (loaders is not None or others is not None):
        rule = (
            "You cannot pass `train_dataloader` or `val_dataloaders` to `trainer.fit(datamodule=...)`"
            if fn == TrainerFn.FITTING
            else f"You cannot pass both `trainer.{fn}(dataloaders=..., datamodule=...)`"
        )
        raise MisconfigurationException(
            f"{rule}. You cannot pass dataloaders and a `datamodule` at once: give one of them."
        )
    return loaders, datamodule
