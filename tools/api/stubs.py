# SPDX-License-Identifier: Apache-2.0
"""The public API of a package as stub texts, one per public module, read from the sources without importing them.

Public is what stands in the ``__all__`` of the package, and of the modules that stand in it. A name that several
modules show is written out once, in the first of them, and imported in the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import griffe

INDENT = "    "
# A longer value is an implementation detail to a reader of the snapshot.
LONGEST_VALUE = 80
# How attributes are found, and how objects are copied and shown, is nobody's business but the class's.
PLUMBING = {"__deepcopy__", "__delattr__", "__getattr__", "__getstate__", "__post_init__", "__repr__", "__setattr__"}
PLUMBING |= {"__setstate__", "__str__"}


@dataclass(frozen=True)
class Surface:
    """What has an entry of its own, so that a class need not repeat it.

    Attributes:
        package: Import name of the package that is described.
        home: The module that describes each public thing, by the thing's full name.
    """

    package: str
    home: dict[str, str]

    def shows(self, path: str) -> bool:
        """Tell whether a thing is described elsewhere: among the public names, or because it is not the package's."""
        return path in self.home or not path.startswith(f"{self.package}.")


def load(package: str, search_paths: Iterable[Path]) -> griffe.Module:
    """Read a package's sources.

    Args:
        package: Import name, such as ``"leyden.core"``.
        search_paths: The folders that hold ``leyden``.

    Returns:
        The package, with its aliases resolved as far as the sources reach.
    """
    loader = griffe.GriffeLoader(search_paths=list(search_paths), allow_inspection=False)
    module = loader.load(package)
    # Names of torch and the standard library stay unresolved, which is right: they are not ours to describe.
    loader.resolve_aliases(external=False)
    assert isinstance(module, griffe.Module), package
    return module


def render(package: griffe.Module) -> dict[str, str]:
    """Write the public API of a package.

    Args:
        package: What `load` gave.

    Returns:
        The stub text of every public module by its import name.
    """
    modules = dict(_public_modules(package))
    home: dict[str, str] = {}
    for name, module in modules.items():
        for public in _listed(module):
            home.setdefault(_target(module, public).canonical_path, name)
    surface = Surface(package.path, home)
    return {name: _module(name, module, surface) for name, module in modules.items()}


def _listed(module: griffe.Module) -> list[str]:
    names = [str(name) for name in module.exports or []]
    missing = [name for name in names if name not in module.members and name != "__version__"]
    if missing:
        raise SystemExit(
            f"{module.path}: __all__ lists {', '.join(missing)}, which its source does not import or define"
        )
    return sorted(name for name in names if name in module.members)


def _target(module: griffe.Module, name: str) -> griffe.Object:
    member = module.members[name]
    return member.final_target if isinstance(member, griffe.Alias) else member


def _public_modules(package: griffe.Module) -> Iterator[tuple[str, griffe.Module]]:
    yield package.path, package
    for name in _listed(package):
        target = _target(package, name)
        if isinstance(target, griffe.Module):
            yield from _public_modules(target)


def _module(name: str, module: griffe.Module, surface: Surface) -> str:
    lines = [f"# The public names of {name}: written by tools/api, compared by .ci/run."]
    for public in _listed(module):
        target = _target(module, public)
        owner = surface.home[target.canonical_path]
        if isinstance(target, griffe.Module):
            lines += ["", f"from {target.path.rpartition('.')[0]} import {target.name} as {public}"]
        elif owner != name:
            lines += ["", f"from {owner} import {target.name} as {public}"]
        else:
            lines += ["", *_object(target, public, surface)]
    return "\n".join(lines) + "\n"


def _object(target: griffe.Object, name: str, surface: Surface) -> list[str]:
    if isinstance(target, griffe.Class):
        return _class(target, name, surface)
    if isinstance(target, griffe.Function):
        return _function(target, name)
    if isinstance(target, griffe.Attribute):
        return _attribute(target, name)
    return [f"{name}: {target.kind.value}"]


def _class(cls: griffe.Class, name: str, surface: Surface) -> list[str]:
    # A private base is an implementation detail; what it brings is listed with the class.
    bases = ", ".join(str(base) for base in cls.bases if _shown_base(base, surface))
    body: list[str] = []
    for member_name, member in sorted(_members(cls, surface).items()):
        body += [f"{INDENT}{line}" for line in _object(member, member_name, surface)]
    return [f"class {name}({bases}):" if bases else f"class {name}:", *(body or [f"{INDENT}..."])]


def _shown_base(base: str | griffe.Expr, surface: Surface) -> bool:
    return surface.shows(base if isinstance(base, str) else base.canonical_path)


def _members(cls: griffe.Class, surface: Surface) -> dict[str, griffe.Object]:
    """The members a user may rely on, with those of private bases, which have no entry of their own."""
    elsewhere = {name for base in cls.mro() if surface.shows(base.canonical_path) for name in base.all_members}
    members: dict[str, griffe.Object] = {}
    for name, member in cls.all_members.items():
        if name not in cls.members and name in elsewhere:
            continue
        target = member.final_target if isinstance(member, griffe.Alias) else member
        if isinstance(target, griffe.Function):
            special = name.startswith("__") and name.endswith("__") and name not in PLUMBING
            shown = special or not name.startswith("_")
        else:
            # What `__init__` alone sets is not promised; a declaration in the class is.
            shown = not name.startswith("_") and ("instance-attribute" not in target.labels or _declared(target))
        if shown:
            members[name] = target
    return members


def _declared(target: griffe.Object) -> bool:
    return bool({"class-attribute", "property", "dataclass-field"} & target.labels)


def _function(function: griffe.Function, name: str) -> list[str]:
    decorators = [f"@{label}" for label in ("staticmethod", "classmethod") if label in function.labels]
    if function.overloads:
        return [
            line for overload in function.overloads for line in ("@overload", *decorators, _signature(overload, name))
        ]
    return [*decorators, _signature(function, name)]


def _signature(function: griffe.Function, name: str) -> str:
    returns = f" -> {function.returns}" if function.returns is not None else ""
    keyword = "async def" if "async" in function.labels else "def"
    return f"{keyword} {name}({_parameters(function.parameters)}){returns}: ..."


def _parameters(parameters: griffe.Parameters) -> str:
    parts: list[str] = []
    kinds = [parameter.kind for parameter in parameters]
    for position, parameter in enumerate(parameters):
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not (
            griffe.ParameterKind.var_positional in kinds or "*" in parts
        ):
            parts.append("*")
        parts.append(_parameter(parameter))
        last_positional = kind is griffe.ParameterKind.positional_only and (
            kinds[position + 1 : position + 2] != [griffe.ParameterKind.positional_only]
        )
        if last_positional:
            parts.append("/")
    return ", ".join(parts)


def _parameter(parameter: griffe.Parameter) -> str:
    star = ""
    if parameter.kind is griffe.ParameterKind.var_positional:
        star = "*"
    elif parameter.kind is griffe.ParameterKind.var_keyword:
        star = "**"
    text = f"{star}{parameter.name}"
    if parameter.annotation is not None:
        text += f": {parameter.annotation}"
    if parameter.default is not None and not star:
        text += f" = {parameter.default}" if parameter.annotation is not None else f"={parameter.default}"
    return text


def _attribute(attribute: griffe.Attribute, name: str) -> list[str]:
    if "property" in attribute.labels:
        returns = f" -> {attribute.annotation}" if attribute.annotation is not None else ""
        lines = ["@property", f"def {name}(self){returns}: ..."]
        if "writable" in attribute.labels:
            lines += [f"@{name}.setter", f"def {name}(self, value{returns.replace(' -> ', ': ')}) -> None: ..."]
        return lines
    annotation = f": {attribute.annotation}" if attribute.annotation is not None else ""
    value = str(attribute.value) if attribute.value is not None else ""
    if value and (len(value) > LONGEST_VALUE or "\n" in value):
        value = "..."
    if not annotation and not value:
        value = "..."
    return [f"{name}{annotation}" + (f" = {value}" if value else "")]
