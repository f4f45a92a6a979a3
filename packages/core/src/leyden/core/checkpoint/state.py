# SPDX-License-Identifier: Apache-2.0
"""The state of a run as one dict, and back. Keys follow the reference; what only Leyden keeps is under ``leyden``."""

from __future__ import annotations

import importlib.metadata
import time
from typing import TYPE_CHECKING, Any

import torch

from leyden.core.checkpoint.store import model_digest, model_name
from leyden.core.errors import CheckpointError, MisconfigurationException, warn
from leyden.core.hparams import HyperparametersMixin
from leyden.core.plain import plain_hyper_parameters
from leyden.core.progress import Progress, from_reference, to_reference
from leyden.core.seeding import collect_rng_state

if TYPE_CHECKING:
    from leyden.core.session import Session

FORMAT = 1
# what a strategy with shards reads when it has the module and the optimisers that take them
IN_SHARDS = ("state_dict", "optimizer_states")
# readers of the reference's files look at this key to migrate old ones; ours follow this version's layout
REFERENCE_VERSION = "2.6.0"


class MisfitError(CheckpointError, RuntimeError):
    """The weights of a checkpoint are those of another model."""


class NoTrainingStateError(CheckpointError, KeyError):
    """A checkpoint holds a model, and a training was to go on from it."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # a KeyError shows the repr of its message


def collect(s: Session, *, weights_only: bool = False) -> dict[str, Any]:
    """Return everything that a run needs to go on: tensors and plain data.

    Args:
        s: The run.
        weights_only: Whether callbacks, optimisers and schedulers are left out.
    """
    p, module = s.progress, s.module
    loops = to_reference(p, automatic=module.automatic_optimization, epoch_start_steps=s.epoch_start_steps)
    checkpoint: dict[str, Any] = {
        "epoch": p.epoch,
        "global_step": p.global_step,
        "pytorch-lightning_version": REFERENCE_VERSION,
        "state_dict": s.strategy.saved_model_state(),
        "loops": loops,
    }
    own: dict[str, Any] = {
        "format": FORMAT,
        "version": importlib.metadata.version("leyden-core"),
        "progress": p.state_dict(),
    }
    precision = s.strategy.precision_plugin
    if not weights_only:
        if precision_state := precision.state_dict():
            checkpoint[type(precision).__qualname__] = precision_state
        checkpoint["callbacks"] = _callback_states(s)
        checkpoint["optimizer_states"] = [s.strategy.saved_optimizer_state(o) for o in s.optimizers]
        checkpoint["lr_schedulers"] = [c.scheduler.state_dict() for c in s.schedulers]
        states = s.strategy.gather_objects(collect_rng_state())
        own["rng"] = {str(rank): rng for rank, rng in enumerate(states)}
        places = s.strategy.gather_objects(_place_in_data(s))
        own["data"] = places[0] if len(places) == 1 else {**places[0], "ranks": places}
        own["open_window"] = _open_gradients(s)
        own["window_weights"] = [_number(s, s.window_weights.get(id(o))) for o in s.optimizers]
        books = s.strategy.gather_objects(s.book.state_dict(s.training))
        own["logbook"] = books[0]
        if len(books) > 1:
            own["logbooks"] = books  # sums of an open epoch are each process's own
        own["loggers"] = _logger_states(s)
        own["env"] = {
            "world": s.strategy.world_size,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "device": s.device.type,
        }
    _add_hyper_parameters(checkpoint, own, module, "")
    if s.datamodule is not None:
        _add_hyper_parameters(checkpoint, own, s.datamodule, "datamodule_")
        state = s.datamodule.state_dict()
        if state:
            checkpoint[type(s.datamodule).__qualname__] = state
    scope = s.book.enter("on_save_checkpoint")
    if not weights_only:
        for callback in s.callbacks:
            tell = s.observers.callback(callback, "on_save_checkpoint", callback.on_save_checkpoint)
            tell(s.trainer, module, checkpoint)
    module.on_save_checkpoint(checkpoint)
    s.book.leave(scope)
    checkpoint["leyden"] = own  # last: hooks see what the reference shows them
    return checkpoint


def record_of(s: Session, *, score: dict[str, float] | None = None, finished: bool = False) -> dict[str, Any]:
    """Return what the file says of itself without its tensors."""
    p = s.progress
    return {
        "format": FORMAT,
        "run": s.trainer._run_id,
        "epoch": p.epoch,
        "step": p.global_step,
        "time": time.time(),
        "score": score or {},
        "finite": is_finite(s.module),
        "finished": finished,
        "module": model_name(s.module),
        "model": model_digest(s.module),
        "loggers": _logger_states(s),
    }


def _all_finite(tensor: torch.Tensor) -> torch.Tensor:
    if type(tensor) is torch.Tensor and tensor.numel() and tensor.dtype in (torch.float32, torch.float64):
        # the extremes tell it in a tenth of the time, and are NaN where one number is
        low, high = torch.aminmax(tensor)
        return torch.isfinite(low) & torch.isfinite(high)
    return torch.isfinite(tensor).all()


def is_finite(module: torch.nn.Module) -> bool:
    """Tell whether every parameter that trains is finite. One wait for the device, at a save only."""
    trained = (p for p in module.parameters() if p.requires_grad and p.is_floating_point())
    checks = [_all_finite(p.detach()) for p in trained]
    return bool(torch.stack([c.cpu() for c in checks]).all()) if checks else True


def _place_in_data(s: Session) -> dict[str, Any]:
    """Return where the pass over the training data began, and the generators that its samplers hold."""
    if s.train_feed is None:
        return {"order": None, "generators": [], "begun": False}
    order = s.train_feed.order
    begun = s.pass_begun and s.progress.epochs_processed == s.progress.epoch
    return {"order": order.place(s.progress.batch), "generators": order.generators, "begun": begun}


def _open_gradients(s: Session) -> dict[str, torch.Tensor]:
    """Return the gradients of an accumulation window that is open, so that a resumed run can close it."""
    p, named = s.progress, s.module.named_parameters()
    if not s.module.automatic_optimization:
        held = [o for o in s.optimizers if id(o) in s.open_optimizers]
        own = {id(q) for o in held for group in o.param_groups for q in group["params"]}
        return {name: q.grad.detach().clone() for name, q in named if q.grad is not None and id(q) in own}
    if not s.has_gradients or p.is_last_batch or p.batch % s.flags.accumulate_grad_batches == 0:
        return {}
    if s.strategy.world_size == 1:
        return {name: q.grad.detach().clone() for name, q in named if q.grad is not None}
    # each process holds its own; their mean, on all, closes the window with the same gradients
    whole = {name: q.grad if q.grad is not None else torch.zeros_like(q) for name, q in named if q.requires_grad}
    return {name: s.strategy.reduce(gradient.detach()) for name, gradient in whole.items()}


def _number(s: Session, weight: Any) -> float | None:
    return None if weight is None else float(s.strategy.reduce(torch.as_tensor(weight, dtype=torch.float64)))


def _logger_states(s: Session) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = []
    for logger in s.loggers:
        own = s.observers.logger(logger, "state_dict", logger.state_dict)() if hasattr(logger, "state_dict") else None
        # without a state, a run that goes on begins another version of the log
        states.append({} if own is None else {"type": type(logger).__qualname__, **own})
    return states


def _callback_states(s: Session) -> dict[str, Any]:
    states: dict[str, Any] = {}
    for callback in s.callbacks:
        state = callback.state_dict()
        if state:
            states[callback.state_key] = state
    return states


def _add_hyper_parameters(checkpoint: dict[str, Any], own: dict[str, Any], owner: Any, prefix: str) -> None:
    if not isinstance(owner, HyperparametersMixin) or not owner.hparams:
        return
    plain, types, omitted = plain_hyper_parameters(owner.hparams)
    checkpoint[f"{prefix}hparams_name"] = owner._hparams_name
    checkpoint[f"{prefix}hyper_parameters"] = plain
    own[f"{prefix}hparams_types"] = types
    own[f"{prefix}hparams_omitted"] = omitted


def restore_model(s: Session, checkpoint: dict[str, Any]) -> None:
    """Load weights, data module and callbacks.

    Raises:
        CheckpointError: The file holds no weights, or weights of another model.
    """
    module = s.module
    if "state_dict" not in checkpoint:
        raise CheckpointError(f"the checkpoint has no `state_dict`; it holds {sorted(map(str, checkpoint))}.")
    module.on_load_checkpoint(checkpoint)
    try:
        s.strategy.load_model_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    except RuntimeError as error:
        raise MisfitError(
            f"the checkpoint does not fit {type(module).__name__}: {error}\nSet `strict_loading = False` on the"
            " module to load what fits."
        ) from error
    name = type(s.datamodule).__qualname__
    if s.datamodule is not None and name in checkpoint:
        s.datamodule.load_state_dict(checkpoint[name])


def restore_callbacks(s: Session, checkpoint: dict[str, Any]) -> None:
    """Hand every callback its state."""
    states = checkpoint.get("callbacks", {})
    missing = set(states) - {c.state_key for c in s.callbacks}
    if missing:
        warn(
            "LY-C001",
            "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided"
            " during `Trainer`"
            f" instantiation. Please add the following callbacks: {sorted(missing)}.",
        )
    for callback in s.callbacks:
        callback.on_load_checkpoint(s.trainer, s.module, checkpoint)
    for callback in s.callbacks:
        if callback.state_key in states:
            callback.load_state_dict(states[callback.state_key])


def restore_progress(s: Session, checkpoint: dict[str, Any]) -> None:
    """Take over the counters, also from a file that another program wrote."""
    own = checkpoint.get("leyden", {})
    fresh = Progress()
    if "progress" in own:
        fresh.load_state_dict(own["progress"])
    else:
        fresh = from_reference(checkpoint.get("loops", {}))
    s.progress.load_state_dict(fresh.state_dict())


def restore_training(s: Session, checkpoint: dict[str, Any]) -> None:
    """Take over optimisers, schedulers, counters, random state, log book and the place in the data.

    Raises:
        CheckpointError: The file holds weights only, or another number of optimisers.
    """
    if "optimizer_states" not in checkpoint or "lr_schedulers" not in checkpoint:
        raise NoTrainingStateError(
            "Trying to restore optimizer state but checkpoint contains only the model. This is probably due to"
            " `ModelCheckpoint.save_weights_only` being set to `True`."
        )
    restore_progress(s, checkpoint)
    last = s.flags.max_epochs
    if last is not None and -1 < last < s.progress.epoch:
        raise MisconfigurationException(
            f"You restored a checkpoint with current_epoch={s.progress.epoch}, but you have set"
            f" Trainer(max_epochs={last})."
        )
    states = checkpoint["optimizer_states"]
    if len(states) != len(s.optimizers):
        raise CheckpointError(
            f"the checkpoint holds {len(states)} optimizers, `configure_optimizers` returned {len(s.optimizers)}."
        )
    for optimizer, state in zip(s.optimizers, states, strict=True):
        s.strategy.load_optimizer_state_dict(optimizer, state)
    precision = s.strategy.precision_plugin
    if type(precision).__qualname__ in checkpoint:
        precision.load_state_dict(checkpoint[type(precision).__qualname__])
    for config, state in zip(s.schedulers, checkpoint["lr_schedulers"], strict=False):
        config.scheduler.load_state_dict(state)
    own = checkpoint.get("leyden", {})
    gradients = own.get("open_window", {})
    for name, parameter in s.module.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)
            s.has_gradients = True
    s.open_optimizers.update(map(id, s.optimizers) if gradients else ())
    for optimizer, weight in zip(s.optimizers, own.get("window_weights", ()), strict=False):
        if weight is not None:
            s.window_weights[id(optimizer)] = weight
    if "logbook" in own:
        books, rank = own.get("logbooks", [own["logbook"]]), s.strategy.global_rank
        alike = len(books) == s.strategy.world_size
        s.book.load_state_dict(books[rank] if alike else {**books[0], "slots": []}, s.training)
        if not alike and s.progress.batch:
            warn(
                "LY-C011",
                f"the checkpoint was written by {len(books)} processes, {s.strategy.world_size} go on: values logged"
                " over the open epoch hold its second part alone.",
            )
    p, rng = s.progress, own.get("rng", {}).get(str(s.strategy.global_rank))
    s.epoch_start_steps = p.global_step
    if p.cut and not enough(s):
        # more steps are wanted now: the epoch goes on where it was left
        p.epochs_processed, p.cut, s.training.on_epoch = p.epoch, False, False
    data = own.get("data", {})
    ranks = data.get("ranks", ())
    place = ranks[s.strategy.global_rank] if len(ranks) == s.strategy.world_size else data
    resumed = {"order": place.get("order"), "generators": place.get("generators", []), "rng": rng}
    if p.batch or place.get("begun") or p.epochs_processed > p.epoch:
        s.resumed = resumed
    else:
        s.resumed_between = resumed
    _say_what_changed(own.get("env"), s)


def enough(s: Session) -> bool:
    """Tell whether the steps that are asked for were done before."""
    return 0 <= s.flags.max_steps <= s.progress.global_step


def _say_what_changed(env: dict[str, Any] | None, s: Session) -> None:
    now = {
        "world": s.strategy.world_size,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "device": s.device.type,
    }
    changed = [f"{k} was {env[k]}, is {v}" for k, v in now.items() if env is not None and env.get(k) != v]
    if changed:
        warn(
            "LY-C002",
            f"the run goes on, but not to the same bits as on the machine that saved it: {'; '.join(changed)}.",
        )
