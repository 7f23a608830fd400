"""The class model: what the class definitions say, before there are any objects.

A ClassModel is one definition; a Behavior is one of its two sides, and knows the names that its methods may use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

from .compiler import CompiledCode
from .faults import listing
from .layout import instance_format
from .literals import ClassVariableBinding, GlobalBinding
from .nodes import PSEUDO_VARIABLES
from .scope import InstanceVariable, OuterVariable
from .tonel import Place, TonelMethod


@dataclass(eq=False)
class ClassModel:
    name: str
    superclass: ClassModel | None
    variables: tuple[str, ...]
    class_variables: tuple[str, ...]
    class_side_variables: tuple[str, ...]
    type: str
    category: str
    package: str
    comment: str
    place: Place | None
    subclasses: list[ClassModel] = field(default_factory=list)

    def chain(self) -> list[ClassModel]:
        """The class and its superclasses, nearest first."""
        result: list[ClassModel] = []
        each: ClassModel | None = self
        while each is not None:
            result.append(each)
            each = each.superclass
        return result

    def all_variables(self) -> list[str]:
        return [name for each in reversed(self.chain()) for name in each.variables]

    def all_class_side_variables(self) -> list[str]:
        return [name for each in reversed(self.chain()) for name in each.class_side_variables]

    @property
    def format(self) -> int:
        """The class's format word: instance size and instance format."""
        size = len(self.all_variables())
        return size | instance_format(self.type, size) << 16


@dataclass(eq=False)
class MethodModel:
    behavior: Behavior
    package: str
    definition: TonelMethod | None  # None for a method that no file holds
    source: str
    protocol: str
    code: CompiledCode


@dataclass(eq=False)
class GlobalScope:
    """The global names that every method sees. `lenient` turns an unknown name into a global whose value is nil."""

    classes: dict[str, ClassModel]
    globals: set[str]
    lenient: bool = False
    undeclared: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Behavior:
    """One side of a class: compiles names for its methods and holds them by selector."""

    model: ClassModel
    is_class_side: bool
    scope: GlobalScope
    methods: dict[str, MethodModel] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.model.name} class" if self.is_class_side else self.model.name

    def all_variables(self) -> list[str]:
        if not self.is_class_side:
            return self.model.all_variables()
        class_class = self.scope.classes.get("Class")
        return (class_class.all_variables() if class_class else []) + self.model.all_class_side_variables()

    def resolve(self, name: str) -> OuterVariable | None:
        variables = self.all_variables()
        if name in variables:
            return InstanceVariable(variables.index(name))
        for each in self.model.chain():
            if name in each.class_variables:
                return ClassVariableBinding(each.name, name)
        if name in self.scope.classes or name in self.scope.globals:
            return GlobalBinding(name)
        if self.scope.lenient and name[0].isupper():
            self.scope.undeclared.add(name)
            return GlobalBinding(name)
        return None

    def explain_unknown(self, name: str) -> str:
        known = [*self.all_variables(), *self.scope.classes, *sorted(self.scope.globals), *sorted(PSEUDO_VARIABLES)]
        known += [variable for each in self.model.chain() for variable in each.class_variables]
        near = get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"; near it: {listing(near)}" if near else ""
        kind = "a class, or a global declared in a package.st" if name[0].isupper() else "a variable"
        return f"`{name}` is unknown in {self.name}, expected {kind}{hint}"

    def refuse_store(self, variable: OuterVariable) -> str | None:
        if isinstance(variable, GlobalBinding) and variable.name in self.scope.classes:
            return f"`{variable.name}` is a class, which can't be assigned to"
        return None
