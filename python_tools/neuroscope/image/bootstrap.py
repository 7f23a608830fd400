"""Classes and compiled methods ► the objects of a fresh image.

Writes literal state only: classes, methods, symbols, the global dictionary, the sources, the first process. All else
is done by Smalltalk when the image starts. Hashed collections are laid out as the image's own code would: rehashing
one moves nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from . import layout
from .bytecodes import SPECIAL_SELECTORS
from .classes import Behavior, ClassModel, MethodModel
from .heap import Char, HeapObject, Slot
from .library import Library
from .literals import (
    SMALL_INTEGER_MAX,
    SMALL_INTEGER_MIN,
    ArrayLiteral,
    ByteArrayLiteral,
    CharacterLiteral,
    ClassVariableBinding,
    ConstantLiteral,
    FloatLiteral,
    FractionLiteral,
    GlobalBinding,
    IntegerLiteral,
    Literal,
    NamedPrimitiveLiteral,
    ScaledDecimalLiteral,
    StringLiteral,
    SymbolLiteral,
)
from .spur import Heap

NO_SOURCE_PACKAGE = 255


class Bootstrap:
    def __init__(self, library: Library, *, with_sources: bool = True) -> None:
        self.library = library
        self.with_sources = with_sources
        self.nil = HeapObject(None, layout.EMPTY)
        self.false = HeapObject(None, layout.EMPTY)
        self.true = HeapObject(None, layout.EMPTY)
        self.class_objects: dict[str, HeapObject] = {}
        self.metaclass_objects: dict[str, HeapObject] = {}
        self.symbols: dict[str, HeapObject] = {}
        self.globals: dict[str, HeapObject] = {}  # name: Association
        self.class_variables: dict[tuple[str, str], HeapObject] = {}
        self.methods: dict[tuple[str, bool, str], HeapObject] = {}
        self.method_sources: dict[str, bytearray] = {each: bytearray() for each in library.packages}

    def heap(self, start: tuple[str, bool, str]) -> Heap:
        """All objects; the first process will activate the method `start` (class, class side, selector)."""
        self._make_classes()
        self.smalltalk = self._new("SystemDictionary", [])
        self._bind_globals()
        for behavior in self._behaviors():
            self._fill_behavior(behavior)
        scheduler = self._scheduler(start)
        self.globals["Processor"].slots[1] = scheduler
        self._set_class_variable("SourceStore", "Default", self._source_store())
        special = self._special_objects()
        names = sorted(self.globals)
        self.smalltalk.slots[:] = self._hashed(
            [(layout.symbol_identity_hash(name), self.globals[name]) for name in names]
        )  # fmt: skip
        # Last of all: every symbol exists now.
        table = self._new(
            "Set", self._hashed([(layout.string_hash(each), self.symbols[each]) for each in sorted(self.symbols)])
        )
        self._set_class_variable("Symbol", "SymbolTable", table)
        class_table = {each.hash: each for each in [*self.class_objects.values(), *self.metaclass_objects.values()]}
        class_table[layout.SECOND_SMALL_INTEGER_INDEX] = self.class_objects["SmallInteger"]
        return Heap(self.nil, self.false, self.true, special, class_table)

    # Making objects

    def _new(self, class_name: str, slots: list[Slot], *, hash_field: int = 0) -> HeapObject:
        """An instance with these slots, and nil in the class's further variables."""
        model = self.library.classes[class_name]
        missing = len(model.all_variables()) - len(slots)
        slots = slots + [self.nil] * missing
        instance_format = layout.instance_format(model.type, len(model.all_variables()))
        return HeapObject(self.class_objects[class_name], instance_format, slots, hash=hash_field)

    def _data(self, class_name: str, data: bytes) -> HeapObject:
        model = self.library.classes[class_name]
        return HeapObject(self.class_objects[class_name], layout.instance_format(model.type, 0), data=data)

    def _array(self, elements: Iterable[Slot]) -> HeapObject:
        return self._new("Array", list(elements))

    def _string(self, text: str, byte_class: str = "ByteString", wide_class: str = "WideString") -> HeapObject:
        if all(ord(each) < 256 for each in text):
            return self._data(byte_class, text.encode("latin-1"))
        return self._data(wide_class, text.encode("utf-32-le"))

    def _symbol(self, text: str) -> HeapObject:
        if text not in self.symbols:
            symbol = self._string(text, "ByteSymbol", "WideSymbol")
            symbol.hash = layout.symbol_identity_hash(text)
            self.symbols[text] = symbol
        return self.symbols[text]

    def _integer(self, value: int) -> Slot:
        if SMALL_INTEGER_MIN <= value <= SMALL_INTEGER_MAX:
            return value
        magnitude = abs(value)
        data = magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "little")
        return self._data("LargeNegativeInteger" if value < 0 else "LargePositiveInteger", data)

    def _fraction(self, numerator: int, denominator: int) -> Slot:
        if denominator == 1:
            return self._integer(numerator)
        return self._new("Fraction", [self._integer(numerator), self._integer(denominator)])

    def _literal(self, literal: Literal) -> Slot:
        match literal:
            case ConstantLiteral(name):
                return {"nil": self.nil, "true": self.true, "false": self.false}[name]
            case IntegerLiteral(value):
                return self._integer(value)
            case FloatLiteral(bits):
                return self._data("Float", struct.pack("<Q", bits))
            case FractionLiteral(numerator, denominator):
                return self._fraction(numerator, denominator)
            case ScaledDecimalLiteral(numerator, denominator, scale):
                return self._new("ScaledDecimal", [self._fraction(numerator, denominator), scale])
            case CharacterLiteral(code):
                return Char(code)
            case StringLiteral(text):
                return self._string(text)
            case SymbolLiteral(text):
                return self._symbol(text)
            case ByteArrayLiteral(data):
                return self._data("ByteArray", data)
            case ArrayLiteral(elements):
                return self._array(self._literal(each) for each in elements)
            case GlobalBinding(name):
                return self.globals[name]
            case ClassVariableBinding(class_name, name):
                return self.class_variables[class_name, name]
            case NamedPrimitiveLiteral(module, function):
                return self._array([self._symbol(module), self._symbol(function), 0, 0])

    def _association(self, key: Slot, value: Slot) -> HeapObject:
        return self._new("Association", [key, value])

    def _hashed(self, elements: list[tuple[int, HeapObject]]) -> list[Slot]:
        """tally and array of a hashed collection; elements are (hash, object) in order of insertion."""
        capacity = layout.table_capacity(len(elements))
        table: list[Slot] = [self.nil] * capacity
        for hash_value, each in elements:
            index = hash_value % capacity
            while table[index] is not self.nil:
                index = (index + 1) % capacity
            table[index] = each
        return [len(elements), self._array(table)]

    def _symbol_dictionary(self, items: dict[str, Slot]) -> HeapObject:
        """An IdentityDictionary with Symbols as keys."""
        pairs = [
            (layout.symbol_identity_hash(name), self._association(self._symbol(name), items[name]))
            for name in sorted(items)
        ]
        return self._new("IdentityDictionary", self._hashed(pairs))

    # Classes

    def _behaviors(self) -> list[Behavior]:
        """Both sides of every class, in order of the class names."""
        behaviors = self.library.behaviors
        return [behaviors[name, side] for name in sorted(self.library.classes) for side in (False, True)]

    def _make_classes(self) -> None:
        next_index = layout.FIRST_FREE_CLASS_INDEX
        for name in sorted(self.library.classes):
            index = layout.CLASS_INDEXES.get(name)
            if index is None:
                index, next_index = next_index, next_index + 1
            self.metaclass_objects[name] = HeapObject(None, layout.FIXED, hash=next_index)
            next_index += 1
            self.class_objects[name] = HeapObject(self.metaclass_objects[name], layout.FIXED, hash=index)
        for each in self.metaclass_objects.values():
            each.class_object = self.class_objects["Metaclass"]
        self.nil.class_object = self.class_objects["UndefinedObject"]
        self.false.class_object = self.class_objects["False"]
        self.true.class_object = self.class_objects["True"]

    def _bind_globals(self) -> None:
        scope = self.library.scope
        for name in sorted({*self.library.classes, *scope.globals, *scope.undeclared}):
            value: Slot = self.class_objects.get(name, self.nil)
            self.globals[name] = self._association(self._symbol(name), value)
        self.globals["Smalltalk"].slots[1] = self.smalltalk
        for model in self._models():
            for name in model.class_variables:
                self.class_variables[model.name, name] = self._association(self._symbol(name), self.nil)

    def _models(self) -> list[ClassModel]:
        return [self.library.classes[name] for name in sorted(self.library.classes)]

    def _set_class_variable(self, class_name: str, name: str, value: Slot) -> None:
        self.class_variables[class_name, name].slots[1] = value

    def _side(self, model: ClassModel, is_class_side: bool) -> HeapObject:
        return (self.metaclass_objects if is_class_side else self.class_objects)[model.name]

    def _fill_behavior(self, behavior: Behavior) -> None:
        model, is_class_side = behavior.model, behavior.is_class_side
        this = self._side(model, is_class_side)
        if model.superclass is not None:
            superclass = self._side(model.superclass, is_class_side)
        else:
            superclass = self.class_objects["Class"] if is_class_side else self.nil
        own = model.class_side_variables if is_class_side else model.variables
        slots: list[Slot] = [
            superclass,
            self._method_dictionary(behavior, this),
            len(behavior.all_variables()) | layout.FIXED << 16 if is_class_side else model.format,
            self._array(self._string(each) for each in own),
            self._organization(behavior),
        ]
        if is_class_side:
            slots.append(self.class_objects[model.name])
            size = len(self.library.classes["Metaclass"].all_variables())
        else:
            slots += self._class_slots(model)
            size = len(self.library.behaviors[model.name, True].all_variables())
        this.slots[:] = slots + [self.nil] * (size - len(slots))

    def _class_slots(self, model: ClassModel) -> list[Slot]:
        subclasses = [self.class_objects[each.name] for each in model.subclasses]
        pool = [self.class_variables[model.name, name] for name in sorted(model.class_variables)]
        pairs = [
            (layout.symbol_identity_hash(name), each)
            for name, each in zip(sorted(model.class_variables), pool, strict=True)
        ]
        return [
            self._array(subclasses) if subclasses else self.nil,
            self._symbol(model.name),
            self._new("IdentityDictionary", self._hashed(pairs)) if pairs else self.nil,
            self.nil,
            self.smalltalk,
            self._symbol(model.category),
        ]

    def _organization(self, behavior: Behavior) -> HeapObject:
        model = behavior.model
        protocols: dict[str, Slot] = {
            selector: self._symbol(behavior.methods[selector].protocol) for selector in sorted(behavior.methods)
        }
        comment = "" if behavior.is_class_side else model.comment
        return self._new(
            "ClassOrganization",
            [self._string(comment), self._symbol(model.package), self._symbol_dictionary(protocols)],
        )

    # Methods

    def _method_dictionary(self, behavior: Behavior, this: HeapObject) -> HeapObject:
        is_class_side = behavior.is_class_side
        binding = self._association(self.nil, this) if is_class_side else self.globals[behavior.model.name]
        capacity = layout.table_capacity(len(behavior.methods))
        keys: list[Slot] = [self.nil] * capacity
        values: list[Slot] = [self.nil] * capacity
        for selector in sorted(behavior.methods):
            method = self._method(behavior.methods[selector], binding)
            self.methods[behavior.model.name, behavior.is_class_side, selector] = method
            index = layout.symbol_identity_hash(selector) & (capacity - 1)
            while keys[index] is not self.nil:
                index = (index + 1) % capacity
            keys[index], values[index] = self._symbol(selector), method
        slots: list[Slot] = [len(behavior.methods), self._array(values)]
        return HeapObject(self.class_objects["MethodDictionary"], layout.FIXED_VARIABLE, slots + keys)

    def _method(self, model: MethodModel, binding: HeapObject) -> HeapObject:
        code = model.code
        method = HeapObject(self.class_objects["CompiledMethod"], layout.COMPILED_METHOD)
        selector: Slot = self._symbol(code.selector)
        if code.pragmas:
            pragmas = [
                self._new(
                    "Pragma",
                    [method, self._symbol(each.selector), self._array(self._literal(one) for one in each.arguments)],
                )
                for each in code.pragmas
            ]
            state = self._new("AdditionalMethodState", [method, selector])
            state.slots += pragmas
            selector = state
        literals = [self._literal(each) for each in code.code.literals]
        method.slots = [code.header, *literals, selector, binding]
        method.data = code.code.bytecodes + self._trailer(model)
        return method

    def _trailer(self, model: MethodModel) -> bytes:
        """u32 offset and u24 length of the source in its package's sources, u8 number of the package."""
        if model.definition is None or not self.with_sources:
            return bytes(7) + bytes([NO_SOURCE_PACKAGE])
        sources = self.method_sources[model.package]
        data = model.source.encode("utf-8")
        package = self.library.packages.index(model.package)
        trailer = struct.pack("<II", len(sources), len(data) | package << 24)
        sources += data
        return trailer

    def _source_store(self) -> HeapObject:
        packages = self.library.packages if self.with_sources else []
        return self._new(
            "SourceStore",
            [
                self._array(self._symbol(each) for each in packages),
                self._array(self._data("ByteArray", bytes(self.method_sources[each])) for each in packages),
            ],
        )

    # The running system

    def _scheduler(self, start: tuple[str, bool, str]) -> HeapObject:
        class_name, is_class_side, _ = start
        method = self.methods[start]
        code = self.library.behaviors[class_name, is_class_side].methods[start[2]].code
        receiver = self.class_objects[class_name] if is_class_side else self.nil
        slots = layout.LARGE_CONTEXT_SLOTS if code.code.large_frame else layout.SMALL_CONTEXT_SLOTS
        first_pc = len(method.slots) * 4 + 1
        context = self._new("Context", [self.nil, first_pc, code.code.num_temps, method, self.nil, receiver])
        context.slots += [self.nil] * slots
        process = self._new("Process", [self.nil, context, layout.USER_PRIORITY, self.nil])
        lists = self._array(self._new("LinkedList", [self.nil, self.nil]) for _ in range(layout.PRIORITIES))
        return self._new("ProcessorScheduler", [lists, process])

    def _special_objects(self) -> HeapObject:
        slots: list[Slot] = [self.nil] * layout.SPECIAL_OBJECTS_SIZE
        slots[layout.SPECIAL_NIL] = self.nil
        slots[layout.SPECIAL_FALSE] = self.false
        slots[layout.SPECIAL_TRUE] = self.true
        slots[layout.SPECIAL_PROCESSOR] = self.globals["Processor"]
        slots[layout.SPECIAL_SMALLTALK] = self.globals["Smalltalk"]
        for index, name in layout.SPECIAL_CLASSES.items():
            slots[index] = self.class_objects.get(name, self.nil)
        for index, name in layout.SPECIAL_SYMBOLS.items():
            slots[index] = self._symbol(name)
        selectors: list[Slot] = []
        for selector, arguments in SPECIAL_SELECTORS:
            selectors += [self._symbol(selector), arguments]
        slots[layout.SPECIAL_SELECTORS] = self._array(selectors)
        slots[layout.SPECIAL_COMPACT_CLASSES] = self._array([self.nil] * layout.COMPACT_CLASSES)
        slots[layout.SPECIAL_EXTERNAL_OBJECTS] = self._array([self.nil] * layout.EXTERNAL_OBJECTS)
        return self._array(slots)
