"""The source tree ► classes with compiled methods.

Reads every package folder, orders the classes, compiles every method. Problems are collected, so that one run shows
them all; a lenient library then goes on without the faulty methods, a strict one is refused by `check`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from ..errors import NeuroScopeError, SourceError
from .classes import Behavior, ClassModel, GlobalScope, MethodModel
from .compiler import compile_do_it, compile_method
from .faults import Fault, line_and_column, listing
from .layout import CLASS_TYPES, SHAPES
from .tonel import TonelFile, TonelMethod, Value, read_tonel

BUILT_IN_GLOBALS = ("Processor", "Smalltalk", "Transcript")
TESTS_SUFFIX = "-Tests"
FILE_KINDS = {".class.st": "Class", ".extension.st": "Extension", "package.st": "Package"}
ENTRY = "<entry>"  # stands for the file in errors about the entry expression

_ENTRY_METHODS = (
    """entryLog: aString level: levelString
	<primitive: 'primitiveLog:level:' module: 'ConsolePlugin'>""",
    """entryQuit
	<primitive: 113>""",
    """entryRun
	| result |
	result := self DoIt.
	self
		entryLog: (result class == ByteString ifTrue: [ result ] ifFalse: [ result printString ])
		level: 'log'.
	self entryQuit""",
)
ENTRY_SELECTOR = "entryRun"


class Library:
    """`problems` are errors, `warnings` what a lenient library did about them."""

    def __init__(self, *, lenient: bool = False) -> None:
        self.lenient = lenient
        self.packages: list[str] = []
        self.classes: dict[str, ClassModel] = {}
        self.behaviors: dict[tuple[str, bool], Behavior] = {}
        self.scope = GlobalScope(self.classes, set(BUILT_IN_GLOBALS), lenient)
        self.problems: list[NeuroScopeError] = []
        self.warnings: list[str] = []

    # Reading

    def read(self, source: Path, packages: Iterable[str] | None, *, with_tests: bool = True) -> None:
        """Raises: SourceError when the folder or a named package does not exist."""
        if not source.is_dir():
            raise SourceError(source, 1, 1, "the source folder does not exist; name another with --source")
        found = sorted(each.name for each in source.iterdir() if (each / "package.st").is_file())
        wanted = found if packages is None else sorted(set(packages))
        for name in wanted:
            if name not in found:
                raise SourceError(
                    source, 1, 1, f"package {name} has no folder with a package.st here; there are {found}"
                )
        self.packages = [each for each in wanted if with_tests or not each.endswith(TESTS_SUFFIX)]
        files: list[tuple[str, TonelFile]] = []
        for package in self.packages:
            for path in sorted((source / package).glob("*.st")):
                try:
                    files.append((package, read_tonel(path)))
                except NeuroScopeError as problem:
                    self.problems.append(problem)
        self._declare_globals(files)
        self._define_classes(files)
        self._check_shapes()
        for package, file in files:
            for method in file.methods:
                self._compile(package, file, method)
        for name in sorted(self.scope.undeclared):
            self.warnings.append(f"unknown global {name}: its value will be nil")

    def check(self) -> None:
        """Raises: the first problem, with the others as notes, unless the library is lenient."""
        if self.problems and not self.lenient:
            first, *others = self.problems
            for each in others:
                first.add_note(str(each))
            raise first

    def _declare_globals(self, files: list[tuple[str, TonelFile]]) -> None:
        for package, file in files:
            name = file.path.name
            expected = next((kind for ending, kind in FILE_KINDS.items() if name.endswith(ending)), None)
            if expected is None:
                self.problems.append(file.start.error(f"found file name {name}, expected one that ends in .class.st"))
            elif file.kind != expected:
                self.problems.append(file.start.error(f"found `{file.kind}` in {name}, expected `{expected}`"))
            if file.kind == "Package":
                if file.properties.get("name") != package:
                    self.problems.append(
                        file.start.error(
                            f"found package #{file.properties.get('name')}, expected #{package}, its folder"
                        )
                    )
                self.scope.globals.update(self._names(file, "globals"))

    def _names(self, file: TonelFile, key: str) -> list[str]:
        value: Value = file.properties.get(key, [])
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return [str(each) for each in value]
        self.problems.append(file.places[key].error(f"found {value!r} for #{key}, expected a list of names"))
        return []

    def _name(self, file: TonelFile, key: str, default: str | None = None) -> str:
        value = file.properties.get(key, default)
        if isinstance(value, str):
            return value
        place = file.places.get(key, file.start)
        self.problems.append(place.error(f"found {value!r} for #{key}, expected a symbol"))
        return ""

    # Classes

    def _define_classes(self, files: list[tuple[str, TonelFile]]) -> None:
        definitions: dict[str, tuple[str, TonelFile]] = {}
        for package, file in files:
            if file.kind != "Class":
                continue
            name = self._name(file, "name")
            if name in definitions:
                other = definitions[name][1].path
                self.problems.append(file.start.error(f"class {name} is defined twice, also in {other}; remove one"))
                continue
            if file.path.name != f"{name}.class.st":
                self.problems.append(file.start.error(f"found class {name}, expected the file to be {name}.class.st"))
            definitions[name] = (package, file)
        pending: set[str] = set()

        def define(name: str) -> ClassModel:
            if name in self.classes:
                return self.classes[name]
            package, file = definitions[name]
            superclass = None
            superclass_name = self._name(file, "superclass")
            place = file.places.get("superclass", file.start)
            pending.add(name)
            if superclass_name in pending:
                self.problems.append(place.error(f"class {name} inherits from itself through {superclass_name}"))
            elif superclass_name in definitions:
                superclass = define(superclass_name)
            elif superclass_name != "nil":
                self.problems.append(place.error(self._unknown_class(superclass_name, definitions)))
                superclass = define("Object") if "Object" in definitions and name != "Object" else None
            pending.discard(name)
            model = self._class_model(package, file, name, superclass)
            self.classes[name] = model
            if superclass is not None:
                superclass.subclasses.append(model)
            for side in (False, True):
                self.behaviors[name, side] = Behavior(model, side, self.scope)
            return model

        for name in sorted(definitions):
            define(name)
        for model in self.classes.values():
            model.subclasses.sort(key=lambda each: each.name)

    def _unknown_class(self, name: str, known: Iterable[str]) -> str:
        near = get_close_matches(name, list(known), n=3)
        return f"class `{name}` is not defined in these packages" + (f"; near it: {listing(near)}" if near else "")

    def _class_model(self, package: str, file: TonelFile, name: str, superclass: ClassModel | None) -> ClassModel:
        inherited = superclass.type if superclass is not None else "normal"
        class_type = self._name(file, "type", inherited)
        if class_type not in CLASS_TYPES:
            place = file.places.get("type", file.start)
            self.problems.append(
                place.error(f"found #{class_type} for #type, expected one of {', '.join(CLASS_TYPES)}")
            )
            class_type = "normal"
        model = ClassModel(
            name=name,
            superclass=superclass,
            variables=tuple(self._names(file, "instVars")),
            class_variables=tuple(self._names(file, "classVars")),
            class_side_variables=tuple(self._names(file, "classInstVars")),
            type=class_type,
            category=self._name(file, "category", package),
            package=package,
            comment=file.comment,
            place=file.start,
        )
        known = {"name", "superclass", "instVars", "classVars", "classInstVars", "type", "category"}
        for key in file.properties:
            if key not in known:
                place = file.places[key]
                self.problems.append(
                    place.error(f"unknown property #{key}, expected one of {', '.join(sorted(known))}")
                )
        variables = model.all_variables()
        for each in variables:
            if variables.count(each) > 1 and each in model.variables:
                self.problems.append(file.places["instVars"].error(f"instance variable {each} is declared twice"))
                break
        if not file.comment:
            self.problems.append(file.start.error(f"class {name} has no comment, expected one that begins `I am`"))
        return model

    def _check_shapes(self) -> None:
        for name, shape in SHAPES.items():
            model = self.classes.get(name)
            if model is None:
                if self.lenient:
                    self.warnings.append(f"class {name} is missing: an empty one takes its place")
                    self._add_bare_class(name)
                continue
            place = model.place
            assert place is not None
            variables = model.all_variables()
            if tuple(variables[: len(shape.variables)]) != shape.variables:
                self.problems.append(
                    place.error(f"{name} has the variables {variables}, expected to begin {list(shape.variables)}")
                )
            if model.type != shape.type:
                self.problems.append(place.error(f"{name} has #type #{model.type}, expected #{shape.type}"))
            for each in shape.class_variables:
                if each not in model.class_variables:
                    self.problems.append(place.error(f"{name} has no class variable {each}, expected one"))

    def _add_bare_class(self, name: str) -> None:
        shape = SHAPES[name]
        superclass = self.classes.get("Object")
        model = ClassModel(
            name, superclass, shape.variables, shape.class_variables, (), shape.type, "Missing", "Missing", "", None
        )
        self.classes[name] = model
        if superclass is not None:
            superclass.subclasses.append(model)
        for side in (False, True):
            self.behaviors[name, side] = Behavior(model, side, self.scope)

    # Methods

    def _compile(self, package: str, file: TonelFile, method: TonelMethod) -> None:
        behavior = self.behaviors.get((method.class_name, method.is_class_side))
        if behavior is None:
            self.problems.append(method.place(0).error(self._unknown_class(method.class_name, self.classes)))
            return
        if method.class_name != file.properties.get("name"):
            self.problems.append(
                method.place(0).error(
                    f"found a method of {method.class_name}, expected one of {file.properties.get('name')}, the file's"
                )
            )
        try:
            code = compile_method(method.source, behavior)
        except Fault as fault:
            place = method.place(fault.offset)
            self.problems.append(fault.located(place.path, place.line, place.column))
            return
        present = behavior.methods.get(code.selector)
        if present is not None:
            assert present.definition is not None
            self.problems.append(
                method.place(0).error(
                    f"{behavior.name}>>{code.selector} is defined twice, also in {present.definition.path}; remove one"
                )
            )
            return
        behavior.methods[code.selector] = MethodModel(behavior, package, method, method.source, method.protocol, code)

    def without_tests(self) -> Library:
        """The same library without the packages of tests: nothing else depends on them."""
        result = Library(lenient=self.lenient)
        result.packages = [each for each in self.packages if not each.endswith(TESTS_SUFFIX)]
        result.scope.globals.update(self.scope.globals)
        result.scope.undeclared.update(self.scope.undeclared)
        for name, model in self.classes.items():
            if not model.package.endswith(TESTS_SUFFIX):
                subclasses = [each for each in model.subclasses if not each.package.endswith(TESTS_SUFFIX)]
                result.classes[name] = replace(model, subclasses=subclasses)
        for (name, side), behavior in self.behaviors.items():
            if name in result.classes:
                methods = {
                    selector: method
                    for selector, method in behavior.methods.items()
                    if not method.package.endswith(TESTS_SUFFIX)
                }
                result.behaviors[name, side] = Behavior(result.classes[name], side, result.scope, methods)
        return result

    def add_entry(self, expression: str) -> None:
        """Installs the expression, and methods that run it and print its value, in UndefinedObject.

        Raises: SourceError with a position in the expression.
        """
        behavior = self.behaviors["UndefinedObject", False]
        try:
            do_it = compile_do_it(expression, behavior)
        except Fault as fault:
            raise fault.located(ENTRY, *line_and_column(expression, fault.offset)) from None
        codes = [do_it] + [compile_method(each, behavior) for each in _ENTRY_METHODS]
        for code in codes:
            behavior.methods[code.selector] = MethodModel(behavior, "", None, "", "private", code)
