"""Tonel files: what is read from them, and the line and column of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from minimal import class_text, write_minimal
from neuroscope.errors import NeuroScopeError, SourceError
from neuroscope.image.build import build_image
from neuroscope.image.library import Library
from neuroscope.image.tonel import parse_tonel

METHOD = "{ #category : #accessing }\nFoo >> bar [\n\t^ 3\n]\n"


def tonel(text: str) -> object:
    return parse_tonel(text, Path("Foo.class.st"))


def test_class_has_comment_properties_and_methods() -> None:
    file = parse_tonel(
        "\"\nI am \"\"Foo\"\".\n\"\nClass {\n\t#name : #Foo,\n\t#instVars : [ 'a', 'b' ],\n\t#category : #'A-B'\n}\n\n"
        + METHOD
        + "{ #category : #'instance creation' }\nFoo class >> at: x put: y [\n\n\t^ [x] \n\n]",
        Path("Foo.class.st"),
    )
    assert file.comment == 'I am "Foo".'
    assert file.properties == {"name": "Foo", "instVars": ["a", "b"], "category": "A-B"}
    bar, at = file.methods
    assert (bar.source, bar.protocol, bar.is_class_side) == ("bar\n\t^ 3", "accessing", False)
    assert (at.source, at.protocol, at.is_class_side) == ("at: x put: y\n\n\t^ [x]", "instance creation", True)


@pytest.mark.parametrize(
    ("body", "source"),
    [
        ("\n\t^ $] ", "\t^ $]"),
        ("\n\t^ '[' , \"]\" $[ ", "\t^ '[' , \"]\" $["),
        ("\n\t^ #[1 2]\n", "\t^ #[1 2]"),
        ("\n\t^ $ \n", "\t^ $ "),
        ("\n\t^ $$ \n", "\t^ $$"),
        ("\n\t^ 'it''s ]'\n", "\t^ 'it''s ]'"),
        (" ^ 1 ", " ^ 1"),
        ("\n", ""),
    ],
)
def test_reader_ignores_brackets_in_literals_and_trailing_space(body: str, source: str) -> None:
    file = parse_tonel(f"Class {{ #name : #Foo }}\n{{ #category : #a }}\nFoo >> m [{body}]", Path("Foo.class.st"))
    assert file.methods[0].source == f"m\n{source}"


def test_a_place_in_a_method_is_a_place_in_the_file() -> None:
    file = parse_tonel("Class { #name : #Foo }\n" + METHOD, Path("Foo.class.st"))
    method = file.methods[0]
    assert [(place.line, place.column) for place in map(method.place, (0, method.source.index("3")))] == [
        (3, 8),
        (4, 4),
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Klass { }", "1:1: found `Klass`, expected one of Class, Extension, Package"),
        ('"abc', '1:1: unterminated class comment; found the end of the file, expected `"`'),
        ("Class [", "1:7: found `[`, expected `{` to begin the properties"),
        ("Class { #name #Foo }", "1:15: found `#`, expected `:` after #name"),
        ("Class { #name : Foo }", "1:17: found `Foo`, expected a symbol (`#Foo`), a string (`'Foo'`)"),
        ("Class { #name : #Foo #x : 1 }", "1:22: found `#`, expected `,` or `}` after the value of #name"),
        ("Class { #name : #Foo, #name : #Foo }", "1:23: property #name is given twice"),
        ("Class { #a : [ #b #c ] }", "1:19: found `#`, expected `,` or `]` in the list"),
        ("Class { #a : 'x }", "1:14: unterminated string"),
        ("Class { #name : #Foo }\nFoo >> bar [ ]", "2:1: found `F`, expected `{ #category : #protocol }`"),
        ("Class { #name : #Foo }\n{ }\nFoo >> bar [ ]", "2:1: the method has no protocol"),
        ("Class { #name : #Foo }\n{ #category : #a }\nFoo bar [ ]", "3:5: found `b`, expected `>>`"),
        ("Class { #name : #Foo }\n{ #category : #a }\nFoo >> bar", "3:8: found the end of the file, expected `[`"),
        ("Class { #name : #Foo }\n{ #category : #a }\nFoo >> bar [ (", "3:12: unterminated method"),
        ("Class { #name : #Foo }\n{ #category : #a }\nFoo >> bar [ 'x ]", "3:14: unterminated string"),
    ],
)
def test_error_has_line_column_found_and_expected(text: str, error: str) -> None:
    with pytest.raises(SourceError) as caught:
        tonel(text)
    assert str(caught.value).startswith(f"Foo.class.st:{error}")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    source = write_minimal(tmp_path)
    (source / "Minimal" / "Foo.class.st").write_bytes(b'"\xff"')
    library = Library()
    library.read(source, None)
    assert "Foo.class.st:1:2: byte FF is not UTF-8" in str(library.problems[0])


FOO = class_text("Foo")
PROBLEMS = [
    ({"Foo.class.st": FOO + METHOD.replace("3", "Zork")}, "Foo.class.st:14:4: `Zork` is unknown in Foo"),
    ({"Foo.class.st": FOO + METHOD.replace("3", "'a")}, "Foo.class.st:14:4: unterminated string"),
    ({"Foo.class.st": FOO + METHOD + METHOD}, "Foo.class.st:17:8: Foo>>bar is defined twice"),
    ({"Foo.class.st": FOO.replace("Object", "Objekt")}, "6:16: class `Objekt` is not defined in these packages; near"),
    ({"Foo.class.st": FOO.replace("#superclass : #Object", "#superclass : #Foo")}, "class Foo inherits from itself"),
    ({"Foo.class.st": FOO.replace("normal", "odd")}, "9:10: found #odd for #type, expected one of normal, variable"),
    ({"Foo.class.st": FOO.replace("#type", "#typ")}, "9:9: unknown property #typ, expected one of category,"),
    ({"Foo.class.st": FOO.replace('"\nI am Foo.\n"\n', "")}, "class Foo has no comment, expected one that"),
    ({"Bar.class.st": FOO}, "found class Foo, expected the file to be Foo.class.st"),
    ({"Foo.st": FOO}, "found file name Foo.st, expected one that ends in .class.st"),
    ({"Foo.extension.st": FOO}, "found `Class` in Foo.extension.st, expected `Extension`"),
    ({"Foo.extension.st": "Extension { #name : #Foo }\n" + METHOD}, "Foo.extension.st:3:8: class `Foo` is not defined"),
    ({"Foo.class.st": FOO, "Bar.extension.st": "Extension { #name : #Bar }\n" + METHOD}, "expected one of Bar"),
    ({"package.st": "Package { #name : #Other }"}, "package.st:1:1: found package #Other, expected #Minimal"),
    ({"Point.class.st": class_text("Point", variables="y x")}, "['y', 'x'], expected to begin ['x', 'y']"),
    ({"Array.class.st": class_text("Array")}, "Array has #type #normal, expected #variable"),
    ({"Symbol.class.st": class_text("Symbol")}, "Symbol has no class variable SymbolTable, expected one"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "error"), PROBLEMS, ids=[error[:40] for _, error in PROBLEMS])
def test_a_faulty_tree_is_refused(tmp_path: Path, files: dict[str, str], error: str) -> None:
    source = write_minimal(tmp_path / "source", files)
    output = tmp_path / "x.image"
    with pytest.raises(NeuroScopeError) as caught:
        build_image(source, output, entry="3")
    assert error in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert not output.exists()


def test_every_problem_of_every_file_is_reported(tmp_path: Path) -> None:
    files = {f"{name}.class.st": class_text(name) + METHOD.replace("Foo", name).replace("3", "Zork") for name in "XYZ"}
    with pytest.raises(SourceError) as caught:
        build_image(write_minimal(tmp_path / "source", files), tmp_path / "x.image", entry="3")
    assert [caught.value.path.name for _ in [0] if isinstance(caught.value.path, Path)] == ["X.class.st"]
    assert len(caught.value.__notes__) == 2


def test_lenient_builds_leave_faulty_methods_out_and_name_unknown_globals(tmp_path: Path) -> None:
    text = FOO + METHOD.replace("3", "Zork") + METHOD.replace("bar", "bad").replace("3", "zork")
    source = write_minimal(tmp_path / "source", {"Foo.class.st": text})
    (source / "Minimal" / "Point.class.st").unlink()
    report = build_image(source, tmp_path / "x.image", entry="3", lenient=True)
    assert [str(each).split(": ", 1)[1] for each in report.problems] == [
        "`zork` is unknown in Foo, expected a variable"
    ]
    assert report.warnings == (
        "class Point is missing: an empty one takes its place",
        "unknown global Zork: its value will be nil",
    )


def test_a_missing_package_and_a_missing_start_are_named(minimal: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="package Zork has no folder"):
        build_image(minimal, tmp_path / "x.image", packages=["Zork"])
    with pytest.raises(SourceError, match="ImageStart class >> boot is not in these packages"):
        build_image(minimal, tmp_path / "x.image")


def test_an_entry_has_positions_of_its_own(minimal: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="<entry>:2:3: `zork` is unknown"):
        build_image(minimal, tmp_path / "x.image", entry="3.\n  zork foo")
