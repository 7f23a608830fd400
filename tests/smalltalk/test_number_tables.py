"""The tables in Kernel-Tests are Python's answers of today, not ones typed in."""

from __future__ import annotations

from number_tables import FILE, class_text, printed


def test_the_tables_of_the_image_are_what_python_answers() -> None:
    assert FILE.read_text(encoding="utf-8") == class_text()


def test_layout_of_printed_floats_is_squeaks() -> None:
    cases = {0.1: "0.1", 1e6: "1.0e6", 999999.5: "999999.5", 0.0001: "0.0001", 1e-5: "1.0e-5", -1.5e300: "-1.5e300"}
    assert {value: printed(value) for value in cases} == cases
