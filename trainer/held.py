"""How much memory the tensors of a graph take at once, told from the graph alone.

Operations are taken in the order in which the graph was made. A result is held from its operation until the last one
that reads it. What a kernel takes for itself (workspaces, inputs in another layout) is not known here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import tensorflow as tf

ALIASES = {
    *("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient"),
    *("EnsureShape", "ReadVariableOp"),
}
"""Operations whose result is an input's memory, or a variable's."""
ELEMENTWISE = {
    *("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "DivNoNan", "Neg", "Square", "Sqrt", "Rsqrt", "Exp", "Log"),
    *("Maximum", "Minimum", "SelectV2", "BiasAdd", "Relu", "Sigmoid", "Tanh", "Softmax"),
    *("ReluGrad", "SigmoidGrad", "TanhGrad", "RsqrtGrad", "SqrtGrad"),
}
"""Operations that write over an input that nothing else reads; compiled by XLA they are parts of what reads them."""
LOOPS = {"While", "StatelessWhile"}
"""What their last turn made is their result, and takes the place of what they were given."""
FUNCTIONS = ("f", "then_branch", "else_branch", "body")
"""Attributes of an operation that name a graph that it runs."""
NOTHING = {"Const", "Placeholder", "VarHandleOp", "NoOp", "Shape"}


def peak(graph: Any, *, fused: bool = False) -> int:
    """Bytes that a ``FuncGraph`` holds at once at most, beside its inputs and variables.

    Args:
        fused: it is compiled by XLA.
    """
    operations = graph.get_operations()
    memory_of: dict[str, str] = {}  # a tensor, by name: the tensor in whose memory it is
    size: dict[str, int] = {}
    reads: Counter[str] = Counter()

    def memory(tensor: tf.Tensor) -> str:
        return memory_of.get(tensor.name, tensor.name)

    for operation in operations:
        if operation.type in ALIASES and operation.inputs:
            for source, made in zip(operation.inputs, operation.outputs, strict=False):
                memory_of[made.name] = memory(source)
        elif operation.type not in NOTHING and not (fused and operation.type in ELEMENTWISE):
            size |= {made.name: _bytes(made) for made in operation.outputs}
        reads.update(map(memory, operation.inputs))
    reads.update(map(memory, graph.outputs))

    now = highest = 0
    for operation in operations:
        read = Counter(map(memory, operation.inputs))
        made = [] if operation.type in ALIASES else [each.name for each in operation.outputs]
        dying = [name for name, times in read.items() if reads[name] == times]
        grown = sum(size.get(name, 0) for name in made)
        in_place = operation.type in ELEMENTWISE and any(size.get(name, 0) >= grown for name in dying)
        beside = 0 if in_place or operation.type in LOOPS else grown
        highest = max(highest, now + max(beside, _within(operation, fused)))
        reads -= read
        now += grown - sum(size.get(name, 0) for name in {*dying, *made} if not reads[name])
    return max(highest, now)


def _within(operation: tf.Operation, fused: bool) -> int:
    """Of the graphs that an operation runs, the largest."""
    graphs = [found for name in FUNCTIONS if (found := _graph(operation, name)) is not None]
    compiled = fused or bool(_attribute(operation, "_XlaMustCompile"))
    return max((peak(graph, fused=compiled) for graph in graphs), default=0)


def _graph(operation: tf.Operation, name: str) -> Any:
    function, graph = _attribute(operation, name), operation.graph
    while function is not None and graph is not None:
        if function.name in graph._functions:  # no public way leads from a call to its graph
            return graph._functions[function.name].graph
        graph = graph.outer_graph
    return None


def _attribute(operation: tf.Operation, name: str) -> Any:
    try:
        return operation.get_attr(name)
    except ValueError:
        return None


def _bytes(tensor: tf.Tensor) -> int:
    if tensor.dtype in (tf.resource, tf.variant, tf.string) or not tensor.shape.is_fully_defined():
        return 0
    return int(tensor.shape.num_elements()) * int(tensor.dtype.size)
