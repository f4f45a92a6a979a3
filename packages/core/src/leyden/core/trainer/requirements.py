# SPDX-License-Identifier: Apache-2.0
"""What a verb needs of module, data and flags: what can not work is refused at once."""

from __future__ import annotations

from typing import Any

from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationTypeError,
    PossibleUserWarning,
    warn,
)
from leyden.core.hooks import overrides, replaces, takes_iterator
from leyden.core.module import LightningModule
from leyden.core.session import Session
from leyden.core.states import TrainerFn

_STEPS = {"fit": "training_step", "validate": "validation_step", "test": "test_step"}
_EXPECTS = (
    "Lightning `Trainer` expects as minimum `training_step()`, `train_dataloader()` and `configure_optimizers()` to be"
    " defined."
)


def validate_configuration(s: Session, fn: TrainerFn, loaders: dict[str, Any]) -> None:
    """Refuse at once what can not work.

    Raises:
        MisconfigurationException: A method or a loader that the verb needs is missing.
    """
    module, name = s.module, type(s.module).__qualname__
    step = _STEPS.get(fn)
    if fn == TrainerFn.PREDICTING and module.predict_step is None:
        raise MisconfigurationException("`predict_step` cannot be None to run `Trainer.predict`")
    if fn == TrainerFn.FITTING:
        for method in ("training_step", "configure_optimizers"):
            if not overrides(module, method, LightningModule):
                raise MisconfigurationException(f"No `{method}()` method defined in {name}. {_EXPECTS}")
        if not s.source("train", loaders.get("train")).defined:
            raise no_loader(fn, "train", "train_dataloaders")
        has_loader = s.source("val", loaders.get("val")).defined
        has_step = overrides(module, "validation_step", LightningModule)
        if has_loader and not has_step:
            warn(
                "LY-T002",
                "You passed in a `val_dataloader` but have no `validation_step`. Skipping val loop.",
                PossibleUserWarning,
            )
        if has_step and not has_loader:
            warn(
                "LY-T003",
                "You defined a `validation_step` but have no `val_dataloader`. Skipping val loop.",
                PossibleUserWarning,
            )
        return
    if step is not None and not overrides(module, step, LightningModule):
        raise MisconfigurationException(f"No `{step}()` method defined to run `Trainer.{fn}`.")
    own = overrides(module, "predict_step", LightningModule)
    forward = module.forward is not None and replaces(module, "forward", LightningModule)
    if fn == TrainerFn.PREDICTING and not (own or forward):
        raise MisconfigurationException(
            f"`Trainer.predict` requires `forward` method to run: {name} has neither it nor `predict_step`."
        )
    kind = "val" if fn == TrainerFn.VALIDATING else str(fn)
    if not s.source(kind, loaders.get(kind)).defined:
        raise no_loader(fn, kind, "dataloaders")


def no_loader(fn: TrainerFn, kind: str, argument: str) -> MisconfigurationTypeError:
    """Return the error for a verb without data."""
    return MisconfigurationTypeError(
        f"An invalid dataloader was passed to `Trainer.{fn}({argument}=...)`. Found None. Either pass the dataloader to"
        f" the `.{fn}()` method OR implement `def {kind}_dataloader(self):` in your"
        f" LightningModule/LightningDataModule. {_EXPECTS if fn == TrainerFn.FITTING else ''}".rstrip()
    )


def refuse_for_join(s: Session) -> None:
    """Refuse what a process without a batch could not take part in.

    Raises:
        MisconfigurationException: ``uneven="join"`` is asked for with several processes, and one of these things.
    """
    strategy, module = s.strategy, s.module
    if s.flags.uneven != "join" or strategy.world_size == 1:
        return
    reasons = {
        f"`{type(strategy).__name__}`, whose forward pass needs every process": not strategy.rests,
        "manual optimization": not module.automatic_optimization,
        "a `training_step` that fetches its batches": takes_iterator(module.training_step),
        "`sync_batchnorm=True`, which takes statistics from every process": s.trainer.sync_batchnorm,
    }
    for what, found in reasons.items():
        if found:
            raise MisconfigurationException(
                f"`uneven='join'` lets a process without batches rest, and does not go with {what}. Use `uneven='stop'`"
                " or 'pad'."
            )


def refuse_for_manual(s: Session) -> None:
    """Refuse flags that only automatic optimisation carries out.

    Raises:
        MisconfigurationException: Clipping or accumulation is asked for, and the module optimises by itself.
    """
    if s.module.automatic_optimization:
        return
    if s.flags.gradient_clip_val:
        raise MisconfigurationException(
            "Automatic gradient clipping is not supported for manual optimization. Remove `Trainer(gradient_clip_val="
            f"{s.flags.gradient_clip_val})` or switch to automatic optimization."
        )
    if s.flags.accumulate_grad_batches != 1:
        raise MisconfigurationException(
            "Automatic gradient accumulation is not supported for manual optimization. Remove"
            f" `Trainer(accumulate_grad_batches={s.flags.accumulate_grad_batches})` or switch to automatic"
            " optimization; `self.optimizers().accumulate(loss, batches=n)` does the same in `training_step`."
        )
