# SPDX-License-Identifier: Apache-2.0
"""The training step as TensorBoard can draw it.

TensorFlow keeps the step in functions that call each other: a branch, the body of a
loop, the part of a replica, what XLA compiles. TensorBoard does not look into them. So
we put the body of each in place of its call, in a copy: what trains is the graph as it
was traced.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

# Operations that call a function, and the attribute that names it: of a branch the one
# for training, of a loop its body.
_CALLS = {
    "If": "then_branch",
    "StatelessIf": "then_branch",
    "While": "body",
    "StatelessWhile": "body",
    "PartitionedCall": "f",
    "StatefulPartitionedCall": "f",
}
_LOOP = "cond/while/"  # prefix of every name in the loop of `train.make_train_steps`
_PASSIVE = ("NoOp", "VarHandleOp")  # they have no output and do nothing
_MAX_CONSTANT_BYTES = 256

# What an operation's output, or a function's argument, is called in the result.
_Names = dict[tuple[str, int], str]


def flatten(graph: Any, parts: Mapping[str, tf.Module]) -> tf.compat.v1.GraphDef:
    """Puts the bodies of all functions in place of their calls.

    Args:
      graph: the `FuncGraph` of a traced `tf.function`.
      parts: modules that own its variables, by name.

    Returns:
      A graph to look at, not to run: an edge does not say which output it comes from.
      Variables have the names of their part, and bodies those of Python functions.
    """
    definition = graph.as_graph_def(add_shapes=True)
    inliner = _Inliner(definition.library.function)
    variables = {
        id(variable.handle): f"variables/{name}/{variable.name.partition('/')[2]}"
        for name, module in parts.items()
        for variable in module.variables
    }
    names: _Names = {}
    for outer, inner in graph.captures:
        if name := variables.get(id(outer)):
            added = inliner.add(name.partition(":")[0], "VarHandleOp")
            names[inner.op.name, 0] = added
    names = inliner.inline(definition.node, "", names)
    results = {names[output.op.name, 0] for output in graph.outputs}
    return _reached(inliner.result, results)


class _Inliner:
    """Collects the operations of functions that call each other."""

    def __init__(self, functions: Iterable[Any]):
        self.result = tf.compat.v1.GraphDef()
        self._functions = {f.signature.name: f for f in functions}
        self._taken: set[str] = set()

    def add(
        self, name: str, kind: str, inputs: Iterable[str] = (), attributes: Any = None
    ) -> str:
        """Adds an operation; returns its name, which is made unique."""
        node = self.result.node.add(name=self._unique(name), op=kind)
        node.input.extend(dict.fromkeys(inputs))
        for key, value in (attributes or {}).items():
            if len(value.tensor.tensor_content) <= _MAX_CONSTANT_BYTES:
                node.attr[key].CopyFrom(value)
        return node.name

    def inline(self, nodes: Iterable[Any], scope: str, names: Mapping) -> _Names:
        """Adds operations, below a scope, and the bodies of functions that they call.

        Args:
          nodes: operations of the graph or of a function, each after its inputs.
          scope: prefix of their names.
          names: names in the result of what is there already.

        Returns:
          `names`, with those of all outputs of these operations.
        """
        known: _Names = dict(names)
        for node in nodes:
            if (node.name, 0) in known:
                continue
            attribute = node.attr[_CALLS[node.op]] if node.op in _CALLS else None
            function = attribute and self._functions.get(attribute.func.name)
            if function:
                known |= self._call(node, function, scope, known)
                continue
            inputs = [f for f in (_find(known, name) for name in node.input) if f]
            if node.op == "Identity" and inputs:
                known[node.name, 0] = inputs[0]
                continue
            place = scope + node.name.removeprefix(_LOOP)
            known[node.name, 0] = self.add(place, node.op, inputs, node.attr)
        return known

    def _call(self, node: Any, function: Any, scope: str, known: _Names) -> _Names:
        """Adds the body of a function that an operation calls; returns its outputs."""
        data = [name for name in node.input if not name.startswith("^")]
        if node.op.endswith("If"):
            del data[0]  # the condition
        arguments: _Names = {}
        for argument, name in zip(function.signature.input_arg, data, strict=True):
            if source := _find(known, name):
                arguments[argument.name, 0] = source
        if node.op.endswith("Call"):
            folder, slash, _ = node.name.removeprefix(_LOOP).rpartition("/")
            place = f"{scope}{folder}{slash}{_python_name(function)}"
            scope = f"{self._unique(place)}/"
        inner = self.inline(function.node_def, scope, arguments)
        outputs = [
            function.ret[output.name] for output in function.signature.output_arg
        ]
        sources = {(node.name, n): _find(inner, o) for n, o in enumerate(outputs)}
        return {key: source for key, source in sources.items() if source}

    def _unique(self, name: str) -> str:
        """The name, with a number if it is taken."""
        numbered, number = name, 0
        while numbered in self._taken:
            number += 1
            numbered = f"{name}_{number}"
        self._taken.add(numbered)
        return numbered


def _find(names: Mapping[tuple[str, int], str], name: str) -> str:
    """Name in the result of an input: "x", "x:1", "x:output:1" or "^x"; "" if none."""
    source, *output = name.removeprefix("^").split(":")
    number = int(output[-1]) if output else 0
    found = names.get((source, number)) or names.get((source, 0), "")
    return f"^{found}" if found and name.startswith("^") else found


def _python_name(function: Any) -> str:
    """__inference_part_step_1005 → part_step"""
    name = re.sub(r"_\d+$", "", function.signature.name)
    return re.sub(r"^__inference_+", "", name)


def _reached(graph: tf.compat.v1.GraphDef, results: set[str]) -> tf.compat.v1.GraphDef:
    """What results, operations without output, and exchanges with others depend on.

    This leaves out the counter of the loop and what only other branches read.
    """
    kept, needed = [], set(results)
    for node in reversed(graph.node):
        acts = not node.attr["_output_shapes"].list.shape and node.op not in _PASSIVE
        # Replicas exchange their gradients by these, and by no edge of the graph.
        acts |= node.op.startswith("Collective")
        if acts or node.name in needed:
            kept.append(node)
            needed |= {name.removeprefix("^") for name in node.input}
    return tf.compat.v1.GraphDef(node=reversed(kept), versions=graph.versions)
