# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: parts of a model that stand still at first and join the training later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from leyden.core.callback import Callback
from leyden.core.errors import MisconfigurationException, warn
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer

Modules = nn.Module | Iterable[Any]


def multiplicative(epoch: int) -> float:
    """Return 2: the learning rate of the backbone doubles in every epoch."""
    return 2.0


class BaseFinetuning(Callback):
    """Base class of callbacks that freeze parts of a model before training and unfreeze them later.

    Override `freeze_before_training`, which is called before ``configure_optimizers``, and `finetune_function`, which
    is called at the start of every training epoch for every optimiser. A resumed run goes on with the parameter groups
    and the frozen parameters that it had.

    Examples:
        >>> from leyden.core.callbacks import BaseFinetuning
        >>> class Later(BaseFinetuning):
        ...     def freeze_before_training(self, pl_module):
        ...         self.freeze(pl_module.encoder)
        ...
        ...     def finetune_function(self, pl_module, epoch, optimizer):
        ...         if epoch == 3:
        ...             self.unfreeze_and_add_param_group(pl_module.encoder, optimizer, lr=1e-4)
    """

    def __init__(self) -> None:
        self._internal_optimizer_metadata: dict[int, list[dict[str, Any]]] = {}
        self._trainable: dict[str, list[str]] | None = None
        self._restarting = False

    # -- to override ---------------------------------------------------------------------------------------------------

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freeze what does not train from the start."""

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Unfreeze what joins the training in an epoch.

        Args:
            pl_module: The module.
            epoch: Number of the epoch that begins; the first is 0.
            optimizer: One of the optimisers; the method is called for each.
        """

    # -- tools ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def flatten_modules(modules: Modules) -> list[nn.Module]:
        """Return the modules without children, and those with parameters of their own, of a module or several."""
        if isinstance(modules, nn.ModuleDict):
            modules = modules.values()
        if isinstance(modules, Iterable):
            found = [inner for module in modules for inner in BaseFinetuning.flatten_modules(module)]
        else:
            found = list(modules.modules())
        return [m for m in dict.fromkeys(found) if not list(m.children()) or m._parameters]

    @staticmethod
    def filter_params(modules: Modules, train_bn: bool = True, requires_grad: bool = True) -> Iterator[nn.Parameter]:
        """Yield the parameters that train, or those that do not.

        Args:
            modules: A module, or several in any nesting.
            train_bn: Whether those of batch normalisation take part.
            requires_grad: Which parameters are meant.
        """
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and not train_bn:
                continue
            yield from (p for p in module.parameters(recurse=False) if p.requires_grad == requires_grad)

    @staticmethod
    def make_trainable(modules: Modules) -> None:
        """Unfreeze modules, the running statistics of batch normalisation included.

        Args:
            modules: A module, or several in any nesting.
        """
        for module in BaseFinetuning.flatten_modules(modules):
            _set_trainable(module, True)

    @staticmethod
    def freeze_module(module: nn.Module) -> None:
        """Freeze one module without its children: its parameters, and the statistics of batch normalisation."""
        _set_trainable(module, False)

    @staticmethod
    def freeze(modules: Modules, train_bn: bool = True) -> None:
        """Freeze modules.

        Args:
            modules: A module, or several in any nesting.
            train_bn: Whether batch normalisation goes on training.
        """
        for module in BaseFinetuning.flatten_modules(modules):
            _set_trainable(module, train_bn and isinstance(module, _BatchNorm))

    @staticmethod
    def filter_on_optimizer(optimizer: Optimizer, params: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Return the parameters that the optimiser does not have yet; a warning says if it has some.

        Args:
            optimizer: The optimiser.
            params: The parameters.
        """
        had = {id(p) for group in optimizer.param_groups for p in group["params"]}
        given = list(params)
        new = [p for p in given if id(p) not in had]
        if len(new) < len(given):
            warn(
                "LY-F001",
                f"{len(given) - len(new)} of the {len(given)} parameters to unfreeze already exist within another group"
                " of this optimizer. Those parameters will be skipped. HINT: did `configure_optimizers` take only"
                f" what trains? {type(optimizer).__name__}(filter(lambda p: p.requires_grad, self.parameters()), ...)",
            )
        return new

    @staticmethod
    def unfreeze_and_add_param_group(
        modules: Modules,
        optimizer: Optimizer,
        lr: float | None = None,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
    ) -> None:
        """Unfreeze modules and give their parameters to an optimiser as a new group.

        Args:
            modules: A module, or several in any nesting.
            optimizer: The optimiser.
            lr: Learning rate of the group; None takes that of the first group, divided by ``initial_denom_lr``.
            initial_denom_lr: The divisor.
            train_bn: Whether batch normalisation trains too; it stands still otherwise.
        """
        for module in BaseFinetuning.flatten_modules(modules):
            _set_trainable(module, train_bn or not isinstance(module, _BatchNorm))
        rate = optimizer.param_groups[0]["lr"] / initial_denom_lr if lr is None else float(lr)
        found = BaseFinetuning.filter_params(modules, train_bn=train_bn, requires_grad=True)
        params = BaseFinetuning.filter_on_optimizer(optimizer, found)
        if params:
            optimizer.add_param_group({"params": params, "lr": rate})

    # -- moments -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze, before the optimisers are made."""
        if stage == TrainerFn.FITTING:
            self.freeze_before_training(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the groups of the run that goes on, or forget those of another one."""
        if self._restarting or trainer.global_step:
            self._restore(trainer, pl_module)
        else:
            self._internal_optimizer_metadata, self._trainable = {}, None
        self._restarting = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let parts join, and remember which group holds what."""
        names = {id(p): name for name, p in pl_module.named_parameters()}
        for index, optimizer in enumerate(trainer.optimizers):
            self.finetune_function(pl_module, trainer.current_epoch, optimizer)
            self._internal_optimizer_metadata[index] = [
                {**group, "params": [names[id(p)] for p in group["params"]]} for group in optimizer.param_groups
            ]
        self._trainable = {
            "parameters": [name for name, p in pl_module.named_parameters() if p.requires_grad],
            "frozen_statistics": [n for n, m in _norms(pl_module) if not m.track_running_stats],
        }

    def _restore(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parameters = dict(pl_module.named_parameters())
        if self._trainable is not None:
            for name, parameter in parameters.items():
                parameter.requires_grad = name in self._trainable["parameters"]
            for name, norm in _norms(pl_module):
                norm.track_running_stats = name not in self._trainable["frozen_statistics"]
        for index, optimizer in enumerate(trainer.optimizers):
            known, made = self._internal_optimizer_metadata.get(index), len(optimizer.param_groups)
            if known is None:
                continue
            optimizer.param_groups = [{**g, "params": [parameters[name] for name in g["params"]]} for g in known]
            if self._trainable is None:  # a file of another writer names groups only: what had joined trains
                for parameter in (p for group in optimizer.param_groups[made:] for p in group["params"]):
                    parameter.requires_grad = True

    # -- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the groups by the names of their parameters, and what trains."""
        return {"internal_optimizer_metadata": self._internal_optimizer_metadata, "trainable": self._trainable}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the groups; they are put in place when the optimisers stand."""
        self._restarting = True
        self._internal_optimizer_metadata = state_dict["internal_optimizer_metadata"]
        self._trainable = state_dict.get("trainable")


class BackboneFinetuning(BaseFinetuning):
    """Trains everything but ``pl_module.backbone`` at first, and the backbone too from some epoch on.

    Args:
        unfreeze_backbone_at_epoch: The epoch in which the backbone joins; the first is 0.
        lambda_func: Given an epoch, the factor by which the learning rate of the backbone changes.
        backbone_initial_ratio_lr: Learning rate of the backbone at first, as a part of that of the first group.
        backbone_initial_lr: Learning rate of the backbone at first; None takes ``backbone_initial_ratio_lr``.
        should_align: Whether the backbone's learning rate stays at that of the first group once it got there.
        initial_denom_lr: As in `unfreeze_and_add_param_group`; the two arguments above leave it without effect.
        train_bn: Whether batch normalisation in the backbone trains, before and after the backbone joins.
        verbose: Whether to print the learning rates.
        rounding: Decimals of those.

    Examples:
        >>> from leyden.core.callbacks import BackboneFinetuning
        >>> callback = BackboneFinetuning(unfreeze_backbone_at_epoch=3, lambda_func=lambda epoch: 1.5)
    """

    def __init__(
        self,
        unfreeze_backbone_at_epoch: int = 10,
        lambda_func: Callable[[int], float] = multiplicative,
        backbone_initial_ratio_lr: float = 10e-2,
        backbone_initial_lr: float | None = None,
        should_align: bool = True,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
        verbose: bool = False,
        rounding: int = 12,
    ) -> None:
        super().__init__()
        self.unfreeze_backbone_at_epoch = unfreeze_backbone_at_epoch
        self.lambda_func = lambda_func
        self.backbone_initial_ratio_lr, self.backbone_initial_lr = backbone_initial_ratio_lr, backbone_initial_lr
        self.should_align, self.initial_denom_lr, self.train_bn = should_align, initial_denom_lr, train_bn
        self.verbose, self.rounding = verbose, rounding
        self.previous_backbone_lr: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze the backbone.

        Raises:
            MisconfigurationException: There is none.
        """
        if stage == TrainerFn.FITTING and not isinstance(getattr(pl_module, "backbone", None), nn.Module):
            raise MisconfigurationException(
                "The LightningModule should have a nn.Module `backbone` attribute;"
                f" {type(pl_module).__name__} has none."
            )
        super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freeze the backbone."""
        self.freeze(_backbone(pl_module), train_bn=self.train_bn)

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Let the backbone join, or raise its learning rate."""
        if epoch < self.unfreeze_backbone_at_epoch:
            return
        current: float = optimizer.param_groups[0]["lr"]
        if epoch == self.unfreeze_backbone_at_epoch or self.previous_backbone_lr is None:
            given = self.backbone_initial_lr
            rate = current * self.backbone_initial_ratio_lr if given is None else given
            backbone = _backbone(pl_module)
            self.unfreeze_and_add_param_group(backbone, optimizer, rate, self.initial_denom_lr, self.train_bn)
        else:
            rate = self.lambda_func(epoch + 1) * self.previous_backbone_lr
            rate = current if self.should_align and rate > current else rate
            optimizer.param_groups[-1]["lr"] = rate
        self.previous_backbone_lr = rate
        if self.verbose:
            pl_module.print(
                f"Current lr: {round(float(current), self.rounding)}, Backbone lr: {round(float(rate), self.rounding)}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the groups, what trains, and the learning rate of the backbone."""
        return {**super().state_dict(), "previous_backbone_lr": self.previous_backbone_lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the groups and the learning rate of the backbone."""
        self.previous_backbone_lr = state_dict["previous_backbone_lr"]
        super().load_state_dict(state_dict)


def _backbone(pl_module: LightningModule) -> nn.Module:
    backbone: Tensor | nn.Module = pl_module.backbone
    assert isinstance(backbone, nn.Module)
    return backbone


def _norms(module: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [(name, m) for name, m in module.named_modules() if isinstance(m, _BatchNorm)]


def _set_trainable(module: nn.Module, trainable: bool) -> None:
    if isinstance(module, _BatchNorm):
        module.track_running_stats = trainable
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad = trainable
