"""What our code uses of the `tensorrt` module, read from its source, and whether a real module has it.

Uses are found by name: `trt.A.B`, `self.trt.A`, and attributes of the variables that hold TensorRT's objects, which the caller
lists with their classes. Arguments are compared with the signatures that pybind writes into docstrings, since the classes
themselves cannot be made without a GPU.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MODULE = ("trt", "_trt")


@dataclass(frozen=True)
class Use:
    """One use. path: from the module on, such as `("Builder", "create_network")`; arguments: positional and named, of a call."""

    line: int
    path: tuple[str, ...]
    is_set: bool = False
    positional: int | None = None
    named: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"line {self.line}: {'.'.join(self.path)}"


def uses(source: str, objects: Mapping[str, str]) -> list[Use]:
    """Every use in a source. objects: variable or attribute name to the class of what it holds."""
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = []
    for node in ast.walk(tree):
        path = _path(node, objects) if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Attribute) and path:
            call = calls.get(id(node))
            arguments = (len(call.args), tuple(k.arg or "**" for k in call.keywords)) if call else (None, ())
            found.append(Use(node.lineno, path, isinstance(node.ctx, ast.Store), *arguments))
    return found


def overrides(source: str) -> Iterator[Use]:
    """Methods of classes that derive from TensorRT's, with the names of their parameters."""
    for node in ast.walk(ast.parse(source)):
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            path = _path(base, {})
            for method in node.body if path and isinstance(node, ast.ClassDef) else ():
                if path and isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    names = tuple(argument.arg for argument in method.args.args[1:])
                    yield Use(method.lineno, (*path, method.name), named=names)


def problems(module: Any, source: str, objects: Mapping[str, str]) -> list[str]:
    """What the module lacks of all that a source uses; empty where it has everything."""
    complaints = [(use, _problem(module, use)) for use in uses(source, objects)]
    complaints += [(use, _override_problem(module, use)) for use in overrides(source)]
    return [f"{use}: {complaint}" for use, complaint in complaints if complaint]


def parameters(function: Any) -> list[list[tuple[str, bool]]]:
    """Of each overload, without `self`: a parameter's name and whether it may be left out."""
    lines = re.findall(r"^(?:\d+\. )?\w+\((self: .*)\)(?: -> .*)?$", function.__doc__ or "", re.MULTILINE)
    return [[(part.split(":")[0].strip(), " = " in part) for part in _split(line)[1:]] for line in lines]


def _split(line: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [""], 0
    for letter in line:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _path(node: ast.AST, objects: Mapping[str, str]) -> tuple[str, ...] | None:
    """Names from the module on; `None` for what is nothing of TensorRT's."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        if node.attr in MODULE:
            return tuple(names) or None
        if node.attr in objects:
            return (objects[node.attr], *names) if names else None
        names.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name) and names:
        if node.id in MODULE:
            return tuple(names)
        if node.id in objects:
            return (objects[node.id], *names)
    return None


def _problem(module: Any, use: Use) -> str:
    thing = module
    for name in use.path:
        if not hasattr(thing, name):
            return f"there is no {name}"
        thing = getattr(thing, name)
    if use.is_set and not (isinstance(thing, property) and thing.fset):
        return "cannot be set"
    if use.positional is None:
        return ""
    function = thing.__init__ if isinstance(thing, type) else thing
    positional = use.positional - (use.path[-1] == "__init__")  # called as a function, with `self`
    found = parameters(function)
    if not found:
        return "its signature cannot be read"
    return "" if any(_fits(each, positional, use.named) for each in found) else f"takes {found}"


def _fits(found: list[tuple[str, bool]], positional: int, named: tuple[str, ...]) -> bool:
    rest = found[positional:]
    names = {name for name, _ in rest}
    return positional <= len(found) and names.issuperset(named) and all(o or name in named for name, o in rest)


def _override_problem(module: Any, use: Use) -> str:
    thing = module
    for name in use.path:
        if not hasattr(thing, name):
            return f"there is no {name} to override"
        thing = getattr(thing, name)
    names = [[name for name, _ in each] for each in parameters(thing)]
    return "" if list(use.named) in names else f"its parameters are {names}"
