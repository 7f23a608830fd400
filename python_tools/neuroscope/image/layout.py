"""What the image format and the virtual machine fix: shapes of classes, class indexes, special objects.

Only tables. The classes themselves are defined in smalltalk/; a definition that contradicts a shape here is refused.
Source: the Spur 32-bit object format and the special objects array of the Squeak virtual machine.
"""

from __future__ import annotations

from dataclasses import dataclass

# Instance formats
EMPTY, FIXED, VARIABLE, FIXED_VARIABLE, WEAK, IMMEDIATE, WORDS, BYTES, COMPILED_METHOD = 0, 1, 2, 3, 4, 7, 10, 16, 24

CLASS_TYPES = {
    "normal": FIXED,
    "variable": VARIABLE,
    "bytes": BYTES,
    "words": WORDS,
    "weak": WEAK,
    "immediate": IMMEDIATE,
    "compiledMethod": COMPILED_METHOD,
}


def instance_format(class_type: str, instance_size: int) -> int:
    """The format field that instances have, from the class's #type and its number of named variables."""
    if class_type == "normal":
        return FIXED if instance_size else EMPTY
    if class_type == "variable":
        return FIXED_VARIABLE if instance_size else VARIABLE
    return CLASS_TYPES[class_type]


@dataclass(frozen=True)
class Shape:
    """The named variables that Python or the virtual machine rely on, inherited ones included, and the #type.
    The class may declare more variables behind these."""

    variables: tuple[str, ...] = ()
    type: str = "normal"
    class_variables: tuple[str, ...] = ()


_BEHAVIOR = ("superclass", "methodDictionary", "format", "instanceVariables", "organization")

SHAPES: dict[str, Shape] = {
    "Object": Shape(),
    "UndefinedObject": Shape(),
    "True": Shape(),
    "False": Shape(),
    "Class": Shape((*_BEHAVIOR, "subclasses", "name", "classPool", "sharedPools", "environment", "category")),
    "Metaclass": Shape((*_BEHAVIOR, "thisClass")),
    "ClassOrganization": Shape(("comment", "package", "protocols")),
    "Association": Shape(("key", "value")),
    "SystemDictionary": Shape(("tally", "array")),
    "IdentityDictionary": Shape(("tally", "array")),
    "Set": Shape(("tally", "array")),
    "MethodDictionary": Shape(("tally", "array"), "variable"),
    "CompiledMethod": Shape((), "compiledMethod"),
    "AdditionalMethodState": Shape(("method", "selector"), "variable"),
    "Pragma": Shape(("method", "keyword", "arguments")),
    "SourceStore": Shape(("packageNames", "packageSources"), class_variables=("Default",)),
    "Array": Shape((), "variable"),
    "ByteArray": Shape((), "bytes"),
    "ByteString": Shape((), "bytes"),
    "WideString": Shape((), "words"),
    "Symbol": Shape(class_variables=("SymbolTable",)),
    "ByteSymbol": Shape((), "bytes"),
    "WideSymbol": Shape((), "words"),
    "Float": Shape((), "words"),
    "Fraction": Shape(("numerator", "denominator")),
    "ScaledDecimal": Shape(("fraction", "scale")),
    "SmallInteger": Shape((), "immediate"),
    "LargePositiveInteger": Shape((), "bytes"),
    "LargeNegativeInteger": Shape((), "bytes"),
    "Character": Shape((), "immediate"),
    "Point": Shape(("x", "y")),
    "Message": Shape(("selector", "arguments", "lookupClass")),
    "Context": Shape(("sender", "pc", "stackp", "method", "closureOrNil", "receiver"), "variable"),
    "BlockClosure": Shape(("outerContext", "startpc", "numArgs"), "variable"),
    "Process": Shape(("nextLink", "suspendedContext", "priority", "myList")),
    "ProcessorScheduler": Shape(("quiescentProcessLists", "activeProcess")),
    "LinkedList": Shape(("firstLink", "lastLink")),
    "Semaphore": Shape(("firstLink", "lastLink", "excessSignals")),
}

# Indexes in the class table that virtual machines know; all other classes are numbered from FIRST_FREE_CLASS_INDEX.
CLASS_INDEXES = {
    "SmallInteger": 1,
    "Character": 2,
    "LargeNegativeInteger": 32,
    "LargePositiveInteger": 33,
    "Float": 34,
    "Message": 35,
    "Context": 36,
    "BlockClosure": 37,
    "FullBlockClosure": 38,
    "Semaphore": 48,
    "ByteArray": 50,
    "Array": 51,
    "ByteString": 52,
    "Bitmap": 53,
    "Point": 54,
}
SECOND_SMALL_INTEGER_INDEX = 3  # immediate tags 1 and 3 are both SmallIntegers
FIRST_FREE_CLASS_INDEX = 1024

SPECIAL_OBJECTS_SIZE = 60
SPECIAL_NIL, SPECIAL_FALSE, SPECIAL_TRUE = 0, 1, 2
SPECIAL_PROCESSOR, SPECIAL_SMALLTALK = 3, 8
SPECIAL_SELECTORS, SPECIAL_COMPACT_CLASSES, SPECIAL_EXTERNAL_OBJECTS = 23, 28, 38
SPECIAL_CLASSES = {
    4: "Bitmap",
    5: "SmallInteger",
    6: "ByteString",
    7: "Array",
    9: "Float",
    10: "Context",
    12: "Point",
    13: "LargePositiveInteger",
    15: "Message",
    16: "CompiledMethod",
    18: "Semaphore",
    19: "Character",
    26: "ByteArray",
    27: "Process",
    36: "BlockClosure",
    37: "FullBlockClosure",
    42: "LargeNegativeInteger",
}
SPECIAL_SYMBOLS = {
    20: "doesNotUnderstand:",
    21: "cannotReturn:",
    25: "mustBeBoolean",
    34: "cannotInterpret:",
    48: "aboutToReturn:through:",
    49: "run:with:in:",
    50: "attemptToAssign:withIndex:",
}
COMPACT_CLASSES = 31  # the virtual machine wants the Array, not what is in it
EXTERNAL_OBJECTS = 64  # semaphores that the host may signal, by index from 1
PRIORITIES = 80
USER_PRIORITY = 40
SMALL_CONTEXT_SLOTS = 16
LARGE_CONTEXT_SLOTS = 56
FIRST_CONTEXT_SLOT = 6

MAX_HASH = 0x3FFFFF


def string_hash(text: str) -> int:
    """The hash of a String and of a Symbol, the same in every String class."""
    result = 0
    for character in text:
        result = (result * 31 + ord(character)) & 0xFFFFFF
    return result


def symbol_identity_hash(text: str) -> int:
    """The identityHash of a Symbol of the image file; 0 would mean that it has none yet."""
    return (string_hash(text) & MAX_HASH) or 1


def table_capacity(tally: int) -> int:
    """Slots of a hashed collection: the least power of two, at least 4, at most three quarters full."""
    capacity = 4
    while tally * 4 > capacity * 3:
        capacity *= 2
    return capacity
