"""The object layout, special objects and bytecodes of the virtual machine and of the image builder are the same."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from neuroscope import project
from neuroscope.image import bytecodes, layout


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    script = Path(__file__).with_name("print_tables.ts")
    printed = subprocess.run([project.node_program(), script], capture_output=True, text=True, timeout=60, check=True)
    result: dict[str, Any] = json.loads(printed.stdout)
    return result


def test_every_opcode_has_the_same_length_on_both_sides(tables: dict[str, Any]) -> None:
    machine = {
        opcode: row["length"]
        for row in tables["v3Bytecodes"]
        if row["name"] != "unused"
        for opcode in range(row["first"], row["last"] + 1)
    }
    builder = {opcode: row.length for row in bytecodes.TABLE for opcode in range(row.first, row.last + 1)}
    assert builder == {opcode: machine[opcode] for opcode in builder}


def test_special_selectors_are_in_the_same_order(tables: dict[str, Any]) -> None:
    assert [name for name, _ in bytecodes.SPECIAL_SELECTORS] == tables["specialSelectors"]


def test_special_objects_have_the_same_indexes(tables: dict[str, Any]) -> None:
    machine = {name: index for name, index in tables["specialObjects"].items()}
    renamed = {"ByteString": "String"}
    for index, name in layout.SPECIAL_CLASSES.items():
        assert machine[f"class{renamed.get(name, name)}"] == index
    for index, selector in layout.SPECIAL_SYMBOLS.items():
        words = [word[0].upper() + word[1:] for word in selector.split(":") if word]
        name = next((each for each in machine if each.startswith(f"selector{words[0]}")), None)
        assert name is None or machine[name] == index, selector
    assert machine["processorAssociation"] == layout.SPECIAL_PROCESSOR
    assert machine["smalltalkAssociation"] == layout.SPECIAL_SMALLTALK
    assert machine["specialSelectors"] == layout.SPECIAL_SELECTORS
    assert machine["compactClasses"] == layout.SPECIAL_COMPACT_CLASSES
    assert machine["externalObjects"] == layout.SPECIAL_EXTERNAL_OBJECTS


def test_contexts_classes_and_processes_have_the_same_slots(tables: dict[str, Any]) -> None:
    assert tables["smallContextSize"] == layout.FIRST_CONTEXT_SLOT + layout.SMALL_CONTEXT_SLOTS
    assert tables["largeContextSize"] == layout.FIRST_CONTEXT_SLOT + layout.LARGE_CONTEXT_SLOTS
    assert tables["contextSlots"]["firstTemp"] == layout.FIRST_CONTEXT_SLOT
    names = {"pc": "pc", "closure": "closureOrNil"}
    for shape, slots in (("Context", "contextSlots"), ("Class", "classSlots"), ("Process", "processSlots")):
        variables = layout.SHAPES[shape].variables
        for name, index in tables[slots].items():
            if name not in ("firstTemp", "thisClass"):
                assert variables[index] == names.get(name, name), f"{shape} slot {index}"
    assert layout.SHAPES["Metaclass"].variables[tables["classSlots"]["thisClass"]] == "thisClass"


def test_the_sources_ask_for_no_primitive_that_the_machine_lacks() -> None:
    pragma = re.compile(r"^\t<primitive: (?:(\d+)|'([^']+)' module: '([^']+)')(?: error: \w+)?>", re.MULTILINE)
    asked = {
        (int(number), None) if number else (name, module)
        for path in project.SMALLTALK.rglob("*.st")
        for number, name, module in pragma.findall(path.read_text(encoding="utf-8"))
    }
    assert len(asked) > 100
    script = Path(__file__).with_name("print_primitives.ts")
    printed = subprocess.run([project.node_program(), script], capture_output=True, text=True, timeout=60, check=True)
    known = json.loads(printed.stdout)
    missing = [
        each
        for each in sorted(asked, key=str)
        if (each[0] not in known["numbers"] if each[1] is None else each[0] not in known["modules"].get(each[1], []))
    ]
    assert missing == []
