"""The builder's tables and the virtual machine's say the same: bytecodes, special objects, slots, primitives."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from neuroscope.image import bytecodes as bc
from neuroscope.image import layout
from neuroscope.image.generator import QUICK_INSTANCE_VARIABLE, QUICK_SELF
from neuroscope.image.library import Library
from neuroscope.project import ROOT, node_program

EXPORT = """
import { v3Bytecodes, specialSelectors } from "./squeakjs/bytecodes.ts";
import * as special from "./squeakjs/special_objects.ts";
import { primitiveTable } from "./squeakjs/index.ts";
console.log(JSON.stringify({ v3Bytecodes, specialSelectors, ...special, primitives: [...primitiveTable.keys()] }));
"""


@pytest.fixture(scope="module")
def machine() -> dict[str, Any]:
    command = [str(node_program()), "--input-type=module-typescript", "-e", EXPORT]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    tables: dict[str, Any] = json.loads(result.stdout)
    return tables


def test_every_opcode_has_the_same_length_in_both_tables(machine: dict[str, Any]) -> None:
    lengths = {
        opcode: row["length"]
        for row in machine["v3Bytecodes"]
        for opcode in range(row["first"], row["last"] + 1)
        if row["name"] != "unused"
    }
    assert lengths == {opcode: row.length for opcode, row in enumerate(bc.BY_OPCODE) if row is not None}


def test_special_selectors_are_the_same_in_the_same_order(machine: dict[str, Any]) -> None:
    assert machine["specialSelectors"] == [selector for selector, _ in bc.SPECIAL_SELECTORS]
    for selector, arguments in bc.SPECIAL_SELECTORS:
        assert arguments == (selector.count(":") if selector[0].isalpha() else 1)


def test_special_objects_have_the_same_places(machine: dict[str, Any]) -> None:
    places = machine["specialObjects"]
    named = {
        "nil": layout.SPECIAL_NIL,
        "false": layout.SPECIAL_FALSE,
        "true": layout.SPECIAL_TRUE,
        "processorAssociation": layout.SPECIAL_PROCESSOR,
        "smalltalkAssociation": layout.SPECIAL_SMALLTALK,
        "specialSelectors": layout.SPECIAL_SELECTORS,
        "compactClasses": layout.SPECIAL_COMPACT_CLASSES,
        "externalObjects": layout.SPECIAL_EXTERNAL_OBJECTS,
    }
    assert {name: places[name] for name in named} == named
    for place, name in layout.SPECIAL_CLASSES.items():
        assert places["classString" if name == "ByteString" else f"class{name}"] == place
    selectors = {name: layout.SPECIAL_SYMBOLS[place] for name, place in places.items() if name.startswith("selector")}
    assert selectors == {
        "selectorDoesNotUnderstand": "doesNotUnderstand:",
        "selectorCannotReturn": "cannotReturn:",
        "selectorMustBeBoolean": "mustBeBoolean",
        "selectorCannotInterpret": "cannotInterpret:",
        "selectorAboutToReturn": "aboutToReturn:through:",
        "selectorRunWithIn": "run:with:in:",
    }


SLOTS = {
    "contextSlots": ("Context", {"closure": "closureOrNil"}),
    "closureSlots": ("BlockClosure", {}),
    "classSlots": ("Class", {}),
    "associationSlots": ("Association", {}),
    "linkedListSlots": ("LinkedList", {}),
    "semaphoreSlots": ("Semaphore", {}),
    "processSlots": ("Process", {}),
    "schedulerSlots": ("ProcessorScheduler", {"lists": "quiescentProcessLists"}),
    "messageSlots": ("Message", {}),
    "methodDictionarySlots": ("MethodDictionary", {"values": "array"}),
}


@pytest.mark.parametrize("table", SLOTS)
def test_objects_that_the_machine_reads_have_the_same_slots(machine: dict[str, Any], table: str) -> None:
    class_name, renamed = SLOTS[table]
    variables = layout.SHAPES[class_name].variables
    for slot, index in machine[table].items():
        if slot == "thisClass":
            assert layout.SHAPES["Metaclass"].variables[index] == slot
        elif slot.startswith("first") and slot != "firstLink":  # where the indexed slots begin
            assert index == len(variables)
        else:
            assert variables[index] == renamed.get(slot, slot)


def test_contexts_have_the_same_sizes(machine: dict[str, Any]) -> None:
    assert machine["smallContextSize"] == layout.FIRST_CONTEXT_SLOT + layout.SMALL_CONTEXT_SLOTS
    assert machine["largeContextSize"] == layout.FIRST_CONTEXT_SLOT + layout.LARGE_CONTEXT_SLOTS


def test_the_machine_has_every_primitive_that_the_sources_name(machine: dict[str, Any]) -> None:
    library = Library()
    library.read(ROOT / "smalltalk", None)
    known = set(machine["primitives"]) | set(range(QUICK_SELF, QUICK_INSTANCE_VARIABLE + 256))
    named = {
        f"{behavior.name}>>{selector}": method.code.code.primitive
        for behavior in library.behaviors.values()
        for selector, method in behavior.methods.items()
        if method.code.code.primitive
    }
    assert len(named) > 100
    assert {name: number for name, number in named.items() if number not in known} == {}
