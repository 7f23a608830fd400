"""The image file: read back by a reader that shares no code with the writer, and the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from minimal import class_text, write_minimal
from neuroscope.errors import SourceError
from neuroscope.image import build
from neuroscope.image.build import build_image
from neuroscope.image.layout import CLASS_INDEXES, SPECIAL_CLASSES, string_hash, symbol_identity_hash
from neuroscope.image.reader import Character, Image, ImageFault, ImageMethod, ImageObject, read_image

LITERALS = """
{ #category : #accessing }
Foo >> literals [
	^ #(1 -1 1073741823 1073741824 -1073741825 1.5 'é' 'λ' #sym #'λ' $λ 1e-1 1.5s2 2s #[1 2] true false nil (1))
]

{ #category : #'with space' }
Foo class >> shared: x [
	<view: 'λ' order: 2>

	^ Shared := Held := x
]
"""
FOO = {
    "Foo.class.st": class_text("Foo", variables="a b", class_variables="Shared", methods=LITERALS),
    "Wide.class.st": class_text("Wide", "Foo", " ".join(f"v{i}" for i in range(260))),
    "package.st": "Package { #name : #Minimal, #globals : [ 'Held' ] }",
}  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    tmp_path = tmp_path_factory.mktemp("image")
    source = write_minimal(tmp_path / "source", FOO)
    tests = source / "Minimal-Tests"
    tests.mkdir()
    (tests / "package.st").write_text("Package { #name : #'Minimal-Tests' }")
    (tests / "FooTest.class.st").write_text(class_text("FooTest"))
    build_image(source, tmp_path / "x.image", entry="3")
    return read_image((tmp_path / "x.image").read_bytes())


def method(image: Image, class_name: str, selector: str) -> ImageMethod:
    return next(each for each in image.methods() if (each.class_name, each.selector) == (class_name, selector))


def slot(value: object, index: int) -> ImageObject:
    assert isinstance(value, ImageObject)
    result = value.slots[index]
    assert isinstance(result, ImageObject)
    return result


def test_the_image_is_sound(image: Image) -> None:
    assert image.problems() == []


def test_nil_false_and_true_come_first(image: Image) -> None:
    assert [each.class_name for each in image.special_objects[:3] if isinstance(each, ImageObject)] == [
        "UndefinedObject",
        "False",
        "True",
    ]
    assert list(image.objects.values())[:3] == image.special_objects[:3]


def test_known_classes_have_the_indexes_and_places_that_virtual_machines_know(image: Image) -> None:
    classes = image.classes()
    for name, index in CLASS_INDEXES.items():
        assert name not in classes or image.class_table[index] is classes[name]
    for place, name in SPECIAL_CLASSES.items():
        assert image.special_objects[place] is classes.get(name, image.nil)
    assert image.class_table[1] is image.class_table[3]


def test_literals_are_objects_of_their_classes(image: Image) -> None:
    array = method(image, "Foo", "literals").literals[0]
    assert isinstance(array, ImageObject)
    small, minus, greatest, large, negative, number, *rest = array.slots
    assert (small, minus, greatest) == (1, -1, 2**30 - 1)
    assert isinstance(large, ImageObject) and isinstance(negative, ImageObject) and isinstance(number, ImageObject)
    assert (large.class_name, large.body) == ("LargePositiveInteger", (2**30).to_bytes(4, "little"))
    assert (negative.class_name, negative.body) == ("LargeNegativeInteger", (2**30 + 1).to_bytes(4, "little"))
    assert (number.class_name, number.body.hex()) == ("Float", "000000000000f83f")
    texts = [each for each in rest[:4] if isinstance(each, ImageObject)]
    assert [(each.class_name, each.text) for each in texts] == [
        ("ByteString", "é"),
        ("WideString", "λ"),
        ("ByteSymbol", "sym"),
        ("WideSymbol", "λ"),
    ]
    assert rest[4] == Character(0x3BB)
    fraction, decimal, whole, data = rest[5:9]
    assert isinstance(fraction, ImageObject) and fraction.slots == [1, 10]
    assert (slot(decimal, 0).slots, decimal.slots[1]) == ([3, 2], 2)  # type: ignore[union-attr]
    assert isinstance(whole, ImageObject) and whole.slots == [2, 0]
    assert isinstance(data, ImageObject) and (data.class_name, data.body) == ("ByteArray", b"\1\2")
    assert rest[9:12] == [image.true, image.false, image.nil]


def test_classes_describe_themselves(image: Image) -> None:
    foo, wide = image.classes()["Foo"], image.classes()["Wide"]
    assert slot(foo, 0).slots[2] == 0 and image.class_name(slot(foo, 0)) == "Object"
    assert foo.slots[2] == 2 | 1 << 16 and wide.slots[2] == 262 | 1 << 16
    assert [each.text for each in slot(foo, 3).slots if isinstance(each, ImageObject)] == ["a", "b"]
    organization = slot(foo, 4)
    assert (slot(organization, 0).text, slot(organization, 1).text) == ("I am Foo.", "Minimal")
    assert slot(foo, 5).slots == [wide]
    assert (slot(foo, 6).text, slot(foo, 10).text) == ("Foo", "Minimal-Core")
    assert list(image.class_variables(foo)) == ["Shared"]
    assert image.globals()["Foo"] is foo and image.globals()["Held"] is image.nil
    metaclass = foo.class_object
    assert metaclass.class_name == "Metaclass" and metaclass.slots[5] is foo
    assert metaclass.slots[0] is image.classes()["Object"].class_object
    assert image.classes()["ProtoObject"].class_object.slots[0] is image.classes()["Class"]


def test_methods_end_in_selector_binding_and_trailer(image: Image) -> None:
    literals = method(image, "Foo", "literals")
    assert literals.source is not None and literals.package == "Minimal"
    assert literals.source.startswith("literals\n\t^ #(1 -1") and "'λ'" in literals.source
    *_, selector, binding = literals.literals
    assert isinstance(selector, ImageObject) and selector.text == "literals"
    assert slot(binding, 0).text == "Foo" and slot(binding, 1) is image.classes()["Foo"]


def test_methods_with_pragmas_have_a_state_and_metaclasses_a_binding_without_name(image: Image) -> None:
    shared = method(image, "Foo", "shared:")
    assert shared.is_class_side
    *literals, state, binding = shared.literals
    assert [slot(each, 0).text for each in literals] == ["Held", "Shared"]
    assert isinstance(state, ImageObject) and slot(state, 1).text == "shared:"
    pragma = slot(state, 2)
    assert slot(pragma, 0) is slot(state, 0) and slot(pragma, 1).text == "view:order:"
    assert isinstance(binding, ImageObject)
    assert binding.slots == [image.nil, image.classes()["Foo"].class_object]


def test_every_symbol_is_once_in_the_symbol_table(image: Image) -> None:
    table = image.class_variables(image.classes()["Symbol"])["SymbolTable"]
    listed = [each for each in slot(table, 1).slots if each is not image.nil]
    symbols = [each for each in image.ordinary_objects() if each.class_name in ("ByteSymbol", "WideSymbol")]
    assert len(listed) == len(symbols) == len({each.text for each in symbols})
    assert set(map(id, listed)) == set(map(id, symbols))
    assert all(each.hash == symbol_identity_hash(each.text) for each in symbols)


def test_string_hash_is_a_polynomial_of_code_points() -> None:
    assert [string_hash(each) for each in ("", "a", "ab", "λ")] == [0, 97, 97 * 31 + 98, 0x3BB]
    assert string_hash("z" * 100) < 1 << 24
    assert symbol_identity_hash("") == 1


def test_the_first_process_is_ready_to_run(image: Image) -> None:
    scheduler = slot(image.special_objects[3], 1)
    process = slot(scheduler, 1)
    context = slot(process, 1)
    assert process.slots[2] == 40 and len(slot(scheduler, 0).slots) == 80
    start = slot(context, 3)
    assert context.slots[1] == start.pointer_count * 4 + 1
    assert context.slots[2] == 1 and context.pointer_count == 6 + 16  # one temporary


def test_sizes_without_sources_and_tests_are_those_of_images_without_them(tmp_path: Path) -> None:
    source = write_minimal(tmp_path / "source", FOO)
    tests = source / "Minimal-Tests"
    tests.mkdir()
    (tests / "package.st").write_text("Package { #name : #'Minimal-Tests' }")
    (tests / "FooTest.class.st").write_text(class_text("FooTest", "Foo") + LITERALS.replace("Foo", "FooTest"))
    (tests / "Foo.extension.st").write_text(
        "Extension { #name : #Foo }\n" + LITERALS.replace("literals", "more")[:120] + "0)\n]"
    )
    full = build_image(source, tmp_path / "x.image", entry="3")
    bare = build_image(source, tmp_path / "y.image", entry="3", with_sources=False)
    shipped = build_image(source, tmp_path / "z.image", entry="3", with_tests=False)
    assert full.bytes == (tmp_path / "x.image").stat().st_size
    assert bare.bytes == full.bytes_without_sources < full.bytes
    assert shipped.bytes == full.bytes_without_tests < full.bytes
    assert (full.classes - shipped.classes, full.methods - shipped.methods) == (1, 3)
    assert all(each.source is None for each in read_image((tmp_path / "y.image").read_bytes()).methods())


def test_the_same_sources_give_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    source = write_minimal(tmp_path / "source", FOO)
    digests = set()
    for seed in ("0", "1"):
        output = tmp_path / f"{seed}.image"
        command = [sys.executable, "-m", "neuroscope.image", "--source", str(source), "--entry", "3", "-o", str(output)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, env=environment, capture_output=True, timeout=60)
        digests.add(hashlib.sha256(output.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_build_that_fails_while_writing_leaves_the_old_image_and_nothing_else(
    minimal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out" / "x.image"
    build_image(minimal, output, entry="3")
    before = output.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(build.os, "fdopen", full)
    with pytest.raises(OSError, match="No space"):
        build_image(minimal, output, entry="4")
    assert output.read_bytes() == before
    assert [each.name for each in output.parent.iterdir()] == ["x.image"]


def test_the_command_line_reports_and_answers_a_status(minimal: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neuroscope.image", "--source", str(minimal), "-o", str(tmp_path / "x.image")]
    good = subprocess.run([*command, "--entry", "3"], capture_output=True, text=True, check=False, timeout=60)
    assert (good.returncode, "bytes" in good.stderr) == (0, True)
    bad = subprocess.run([*command, "--only", "Nothing"], capture_output=True, text=True, check=False, timeout=60)
    assert bad.returncode == 1 and "package Nothing" in bad.stderr and "Traceback" not in bad.stderr


@pytest.mark.parametrize("change", ["version", "cut", "pointer"])
def test_the_reader_refuses_a_damaged_file(minimal: Path, tmp_path: Path, change: str) -> None:
    build_image(minimal, tmp_path / "x.image", entry="3")
    data = bytearray((tmp_path / "x.image").read_bytes())
    if change == "version":
        data[0] ^= 2
    elif change == "cut":
        del data[-8:]
    else:
        image = read_image(bytes(data))
        data[64 + image.special_address - image.base + 8 + 4 * 6] ^= 4
    with pytest.raises(ImageFault):
        assert read_image(bytes(data)).special_objects


def test_a_wrong_layout_is_found(minimal: Path, tmp_path: Path) -> None:
    """The checks can fail: an object with another hash is no longer where its collection looks for it."""
    build_image(minimal, tmp_path / "x.image", entry="3")
    image = read_image((tmp_path / "x.image").read_bytes())
    symbol = next(each for each in image.ordinary_objects() if each.class_name == "ByteSymbol" and each.text == "Point")
    symbol.hash ^= 5
    assert any("does not find" in each for each in image.problems())


def test_a_source_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the source folder does not exist"):
        build_image(tmp_path / "nowhere", tmp_path / "x.image")
