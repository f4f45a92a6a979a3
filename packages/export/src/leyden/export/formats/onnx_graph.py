# SPDX-License-Identifier: Apache-2.0
"""Make a converted ONNX graph keep its contract: names, declared shapes, and nothing of the machine it was made on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx

from leyden.export.contract import Contract, TensorSpec

_SUBJECT = "module."


def settle(model: Any, contract: Contract) -> None:
    """Change a model in place so that its border is the contract's.

    Args:
        model: An ``onnx.ModelProto`` as the converter gives it: inputs and outputs in order, named after operators.
        contract: Names and shapes.
    """
    graph = model.graph
    _split_outputs(graph)
    _rename(graph, _new_names(graph, contract))
    for values, specs in ((graph.input, contract.inputs), (graph.output, contract.outputs)):
        for value, spec in zip(values, specs, strict=True):
            _declare(value, spec)
    _strip(model)


def _split_outputs(graph: Any) -> None:
    """Give each output a value of its own; an input or a weight that is returned as it is goes through Identity."""
    taken = {value.name for value in (*graph.input, *graph.initializer)}
    for number, output in enumerate(graph.output):
        if output.name in taken:
            fresh = f"{output.name}__returned_{number}"
            graph.node.append(onnx.helper.make_node("Identity", [output.name], [fresh]))
            output.name = fresh
        taken.add(output.name)


def _new_names(graph: Any, contract: Contract) -> dict[str, str]:
    """Map old names to new ones: the contract's at the border, those of the state dict for weights."""
    wanted = {value.name: spec.name for value, spec in zip(graph.input, contract.inputs, strict=True)}
    wanted.update({value.name: spec.name for value, spec in zip(graph.output, contract.outputs, strict=True)})
    border = set(wanted.values())
    names: dict[str, str] = {}
    for weight in graph.initializer:
        names[weight.name] = weight.name.removeprefix(_SUBJECT)
    for inner in _graphs(graph):
        for name in (name for node in inner.node for name in node.output if name):
            names.setdefault(name, name)
    moved = {old: f"{new}__inner" if new in border else new for old, new in names.items()}
    return {**moved, **wanted}


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for inner in _graphs(graph):
        for node in inner.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for value in (*inner.input, *inner.output, *inner.initializer):
            value.name = names.get(value.name, value.name)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and the graphs inside its nodes: branches and loop bodies see the outer names."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
            for subgraph in inner:
                yield from _graphs(subgraph)


def _declare(value: Any, spec: TensorSpec) -> None:
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    for size in spec.shape:
        dim = shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size


def _strip(model: Any) -> None:
    """Remove source lines, absolute paths, and the shapes of inner values, which may be those of the example."""
    for holder in (model, *model.functions):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    for function in model.functions:
        function.ClearField("value_info")
        _strip_nodes(function)
    for graph in _graphs(model.graph):
        for field in ("metadata_props", "doc_string", "value_info"):
            graph.ClearField(field)
        _strip_nodes(graph)
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.ClearField("metadata_props")
            value.ClearField("doc_string")


def _strip_nodes(holder: Any) -> None:
    for node in holder.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
