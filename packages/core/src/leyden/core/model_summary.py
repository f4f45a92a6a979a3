# SPDX-License-Identifier: Apache-2.0
"""What a model is made of: its layers, their parameters, sizes and operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from leyden.core.errors import LeydenWarning, MisconfigurationValueError, warn

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

UNKNOWN_SIZE = "?"
NOT_APPLICABLE = "n/a"
LEFTOVER_PARAMS_NAME = "other params"
_UNITS = (" ", "K", "M", "B", "T")


class LayerSummary:
    """One layer: type, parameters and mode; its sizes are taken from its first forward pass.

    Args:
        module: The layer.

    Examples:
        >>> import torch
        >>> from leyden.core.model_summary import LayerSummary
        >>> layer = torch.nn.Conv2d(3, 8, 3)
        >>> summary = LayerSummary(layer)
        >>> output = layer(torch.rand(1, 3, 5, 5))
        >>> summary.num_parameters, summary.in_size, summary.out_size
        (224, [1, 3, 5, 5], [1, 8, 3, 3])
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.in_size: str | list[Any] = UNKNOWN_SIZE
        self.out_size: str | list[Any] = UNKNOWN_SIZE
        # scripted modules take no hooks
        scripted = isinstance(module, torch.jit.ScriptModule)
        self._handle = None if scripted else module.register_forward_hook(self._measure, with_kwargs=True)

    def _measure(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs = (*args, *kwargs.values())
        self.in_size = parse_batch_shape(inputs[0] if len(inputs) == 1 else inputs)
        self.out_size = parse_batch_shape(output)
        self.detach_hook()

    def detach_hook(self) -> None:
        """Take the hook off the layer."""
        if self._handle is not None:
            self._handle.remove()

    @property
    def layer_type(self) -> str:
        """Name of the layer's class."""
        return type(self._module).__name__

    @property
    def num_parameters(self) -> int:
        """Number of parameters, without those that a lazy layer has not made."""
        return _count(self._module)

    @property
    def training(self) -> bool:
        """Whether the layer is in training mode."""
        return self._module.training


class ModelSummary:
    """The layers of a model, as numbers and as a table.

    A model with an ``example_input_array`` is run on it once, in evaluation mode, to learn the sizes and the operations
    of every layer. A parameter that several layers share counts once in the totals.

    Args:
        model: The model.
        max_depth: How deep into nested modules to go; -1 for all the way, 0 for no layers.

    Raises:
        MisconfigurationValueError: ``max_depth`` is below -1.

    Examples:
        >>> from torch import nn
        >>> from leyden.core.model_summary import ModelSummary
        >>> summary = ModelSummary(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
        >>> summary.layer_types, summary.param_nums, summary.total_parameters
        (['Linear', 'ReLU'], [9, 0], 9)
    """

    def __init__(self, model: nn.Module, max_depth: int = 1) -> None:
        if not isinstance(max_depth, int) or max_depth < -1:
            raise MisconfigurationValueError(f"`max_depth` can be -1, 0 or > 0, got {max_depth!r}.")
        self._model, self._max_depth = model, max_depth
        self._flops: FlopCounterMode | None = None
        self._layers = self._summarize()

    @property
    def named_modules(self) -> list[tuple[str, nn.Module]]:
        """The layers down to ``max_depth``, with their names."""
        deep = self._max_depth
        found = [(name, layer) for name, layer in self._model.named_modules(remove_duplicate=False) if name]
        seen: set[int] = set()
        layers = []
        for name, layer in found:
            if (deep == -1 or name.count(".") < deep) and id(layer) not in seen:
                seen.add(id(layer))
                layers.append((name, layer))
        return layers

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers."""
        return list(self._layers)

    @property
    def layer_types(self) -> list[str]:
        """Classes of the layers."""
        return [layer.layer_type for layer in self._layers.values()]

    @property
    def in_sizes(self) -> list[Any]:
        """Shapes of what goes into the layers; ``"?"`` where it is not known."""
        return [layer.in_size for layer in self._layers.values()]

    @property
    def out_sizes(self) -> list[Any]:
        """Shapes of what comes out of the layers; ``"?"`` where it is not known."""
        return [layer.out_size for layer in self._layers.values()]

    @property
    def param_nums(self) -> list[int]:
        """Numbers of parameters of the layers."""
        return [layer.num_parameters for layer in self._layers.values()]

    @property
    def training_modes(self) -> list[bool]:
        """Whether the layers are in training mode."""
        return [layer.training for layer in self._layers.values()]

    @property
    def total_training_modes(self) -> dict[str, int]:
        """How many submodules are in the modes ``"train"`` and ``"eval"``."""
        modes = [module.training for module in self._model.modules()][1:]
        return {"train": modes.count(True), "eval": modes.count(False)}

    @property
    def total_parameters(self) -> int:
        """Parameters of the model."""
        return _count(self._model)

    @property
    def trainable_parameters(self) -> int:
        """Parameters of the model that need gradients."""
        return _count(self._model, trainable=True)

    @property
    def total_layer_params(self) -> int:
        """Sum of the parameters of the listed layers."""
        return sum(self.param_nums)

    @property
    def model_size(self) -> float:
        """Megabytes that the parameters take."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters() if not is_lazy(p)) * 1e-6

    @property
    def total_flops(self) -> int:
        """Operations of one forward pass on the example input; 0 without one."""
        return 0 if self._flops is None else int(self._flops.get_total_flops())

    @property
    def flop_counts(self) -> dict[str, dict[Any, int]]:
        """Operations of the layers, by kind."""
        counts: dict[str, dict[Any, int]] = {} if self._flops is None else self._flops.get_flop_counts()
        return {name: counts.get(f"{type(self._model).__name__}.{name}", {}) for name in self._layers}

    def _summarize(self) -> dict[str, LayerSummary]:
        layers = {name: LayerSummary(layer) for name, layer in self.named_modules}
        try:
            if getattr(self._model, "example_input_array", None) is not None:
                self._run_example()
        finally:
            for layer in layers.values():
                layer.detach_hook()
        return layers

    def _run_example(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        model: Any = self._model
        example = model.example_input_array
        if hasattr(model, "transfer_batch_to_device"):
            example = model.transfer_batch_to_device(model.on_before_batch_transfer(example, 0), model.device, 0)
            example = model.on_after_batch_transfer(example, 0)
        modes = {module: module.training for module in model.modules()}
        self._flops = FlopCounterMode(display=False, depth=self._max_depth + 1)
        model.eval()
        with torch.no_grad(), self._flops:
            if isinstance(example, (list, tuple)):
                model(*example)
            elif isinstance(example, dict):
                model(**example)
            else:
                model(example)
        for module, training in modes.items():
            module.training = training

    def columns(self) -> list[tuple[str, list[str]]]:
        """Return the table's columns: a title and the text of every row."""
        counts = self.flop_counts.values()
        table = [
            (" ", [str(number) for number in range(len(self._layers))]),
            ("Name", self.layer_names),
            ("Type", self.layer_types),
            ("Params", [get_human_readable_count(number) for number in self.param_nums]),
            ("Mode", ["train" if training else "eval" for training in self.training_modes]),
            ("FLOPs", [get_human_readable_count(sum(count.values())) for count in counts]),
        ]
        if getattr(self._model, "example_input_array", None) is not None:
            table.append(("In sizes", [str(size) for size in self.in_sizes]))
            table.append(("Out sizes", [str(size) for size in self.out_sizes]))
        left = self.total_parameters - self.total_layer_params
        if left > 0:
            own = {" ": " ", "Name": LEFTOVER_PARAMS_NAME, "Params": get_human_readable_count(left)}
            for title, cells in table:
                cells.append(own.get(title, NOT_APPLICABLE))
        return table

    def __str__(self) -> str:
        totals = self.total_parameters, self.trainable_parameters, self.model_size
        return format_summary(self.columns(), *totals, self.total_training_modes, self.total_flops)

    __repr__ = __str__


def summarize(lightning_module: nn.Module, max_depth: int = 1) -> ModelSummary:
    """Return the summary of a model.

    Args:
        lightning_module: The model.
        max_depth: How deep into nested modules to go; -1 for all the way, 0 for no layers.

    Examples:
        >>> from torch import nn
        >>> from leyden.core.model_summary import summarize
        >>> summarize(nn.Sequential(nn.Linear(2, 3))).layer_names
        ['0']
    """
    return ModelSummary(lightning_module, max_depth=max_depth)


def format_summary(
    columns: list[tuple[str, list[str]]],
    total_parameters: int,
    trainable_parameters: int,
    model_size: float,
    total_training_modes: dict[str, int],
    total_flops: int,
) -> str:
    """Return the table of a summary with its totals below."""
    widths = [max(map(len, (title, *cells))) for title, cells in columns]
    rows = [[title for title, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = "-" * (sum(widths) + 3 * (len(widths) + 1))
    totals = [
        (get_human_readable_count(trainable_parameters), "Trainable params"),
        (get_human_readable_count(total_parameters - trainable_parameters), "Non-trainable params"),
        (get_human_readable_count(total_parameters), "Total params"),
        (get_formatted_model_size(model_size), "Total estimated model params size (MB)"),
        (str(total_training_modes["train"]), "Modules in train mode"),
        (str(total_training_modes["eval"]), "Modules in eval mode"),
        (get_human_readable_count(total_flops), "Total Flops"),
    ]
    return "\n".join([lines[0], rule, *lines[1:], rule, *(f"{number:<10}{text}" for number, text in totals)])


def parse_batch_shape(batch: Any) -> str | list[Any]:
    """Return the shape of a tensor, or those of the tensors in a list; ``"?"`` for anything else."""
    if hasattr(batch, "shape"):
        return list(batch.shape)
    if isinstance(batch, (list, tuple)):
        return [parse_batch_shape(item) for item in batch]
    return UNKNOWN_SIZE


def get_formatted_model_size(total_model_size: float) -> str:
    """Return megabytes as the summary shows them."""
    return f"{total_model_size:,.3f}"


def get_human_readable_count(number: int) -> str:
    """Return a number with a unit: K, M, B or T.

    Examples:
        >>> from leyden.core.model_summary import get_human_readable_count
        >>> [get_human_readable_count(n) for n in (123, 1234, 2_000_000, 400 * 10**12, 5 * 10**15)]
        ['123  ', '1.2 K', '2.0 M', '400 T', '5,000 T']
    """
    unit = min((len(str(int(number))) - 1) // 3, len(_UNITS) - 1)
    scaled = number / 1000**unit
    return f"{int(scaled):,d} {_UNITS[unit]}" if unit == 0 or scaled >= 100 else f"{scaled:,.1f} {_UNITS[unit]}"


def _count(module: nn.Module, *, trainable: bool = False) -> int:
    found = list(module.parameters())
    if any(map(is_lazy, found)):
        warn(
            "LY-S002",
            "The total number of parameters detected may be inaccurate because the model contains an instance of"
            " `UninitializedParameter`. To get an accurate number, set `self.example_input_array` in your module.",
            LeydenWarning,
        )
    return sum(p.numel() for p in found if not is_lazy(p) and (p.requires_grad or not trainable))
