"""Reads an image file (Spur, 32 bits, little endian) back into objects, and checks that it makes sense.

Written from the format, not from the writer: it shares no code with spur.py or bootstrap.py, only the tables of
layout.py. Tests use it; nothing else does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import layout

_VERSION = 6521
_PAGES, _PAGE = 4096, 1024  # of the class table
_FIRST_ORDINARY_CLASS_INDEX = 32
_BRIDGE_BYTES = 16


@dataclass(eq=False)
class ImageObject:
    address: int
    class_index: int
    format: int
    hash: int
    body: bytes  # without padding
    image: Image = field(repr=False)

    @property
    def is_method(self) -> bool:
        return self.format >= layout.COMPILED_METHOD

    @property
    def pointer_count(self) -> int:
        if self.is_method:
            return 1 + (self.word(0) >> 1 & 0x7FFF)
        return len(self.body) // 4 if self.format <= 5 else 0

    def word(self, index: int) -> int:
        return int(struct.unpack_from("<I", self.body, index * 4)[0])

    @property
    def slots(self) -> list[Value]:
        return [self.image.value(self.word(index)) for index in range(self.pointer_count)]

    @property
    def class_object(self) -> ImageObject:
        return self.image.class_table[self.class_index]

    @property
    def class_name(self) -> str:
        return self.image.class_name(self.class_object)

    @property
    def text(self) -> str:
        """The characters of a String or Symbol."""
        return self.body.decode("utf-32-le" if self.format == layout.WORDS else "latin-1")


@dataclass(frozen=True)
class Character:
    code: int


Value = ImageObject | int | Character


@dataclass(frozen=True)
class ImageMethod:
    """A method as the image holds it. `source` is None where the image has none."""

    class_name: str
    is_class_side: bool
    selector: str
    header: int
    literals: tuple[Value, ...]  # with the final two
    bytecodes: bytes
    source: str | None
    package: str | None


class ImageFault(Exception):
    """An image that breaks the format; the text says where."""


class Image:
    """Raises: ImageFault while reading, where the file can't be walked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        header = struct.unpack_from("<16I", data)
        if header[0] != _VERSION:
            raise ImageFault(f"version {header[0]}, expected {_VERSION}")
        self.base, self.special_address = header[3], header[4]
        self.heap_bytes = header[2]
        self.objects: dict[int, ImageObject] = {}
        self._walk(header[1])
        first = list(self.objects)[:3]
        self.nil, self.false, self.true = [self.objects[each] for each in first]
        self.class_table: dict[int, ImageObject] = {}
        self._read_class_table()

    def _walk(self, start: int) -> None:
        position, end = start, start + self.heap_bytes - _BRIDGE_BYTES
        if len(self.data) != end + _BRIDGE_BYTES:
            raise ImageFault(f"{len(self.data)} bytes, expected {end + _BRIDGE_BYTES}, as the header says")
        while position < end:
            low, high = struct.unpack_from("<II", self.data, position)
            words = high >> 24
            if words == 255:
                words = low
                position += 8
                low, high = struct.unpack_from("<II", self.data, position)
            address = self.base + position - start
            format_field = low >> 24 & 31
            unused = 0
            if format_field >= layout.BYTES:
                unused, format_field = format_field & 3, format_field & ~7
            body = self.data[position + 8 : position + 8 + words * 4 - unused]
            self.objects[address] = ImageObject(address, low & 0x3FFFFF, format_field, high & 0x3FFFFF, body, self)
            position += 8 + max(8, (words * 4 + 7) // 8 * 8)
        if position != end:
            raise ImageFault(f"objects end at {position}, expected {end}, where the bridge begins")

    def _read_class_table(self) -> None:
        roots = next(each for each in self.objects.values() if each.class_index == 16)
        for page_number, page in enumerate(roots.slots[:_PAGES]):
            if isinstance(page, ImageObject) and page is not self.nil:
                for index, entry in enumerate(page.slots):
                    if isinstance(entry, ImageObject) and entry is not self.nil:
                        self.class_table[page_number * _PAGE + index] = entry

    def value(self, word: int) -> Value:
        if word & 1:
            return (word >> 1) - (1 << 31 if word & 0x80000000 else 0)
        if word & 3 == 2:
            return Character(word >> 2)
        if word not in self.objects:
            raise ImageFault(f"pointer {word:#x} points at no object")
        return self.objects[word]

    @property
    def special_objects(self) -> list[Value]:
        return self.objects[self.special_address].slots

    # The Smalltalk view

    def ordinary_objects(self) -> Iterator[ImageObject]:
        """All but the virtual machine's own objects."""
        return (each for each in self.objects.values() if each.class_index >= _FIRST_ORDINARY_CLASS_INDEX)

    def class_name(self, class_object: ImageObject) -> str:
        slots = class_object.slots
        metaclass = self.class_table[class_object.class_index]
        if metaclass.class_object is not metaclass and len(slots) > 6:
            name = slots[6]
            if isinstance(name, ImageObject) and name.format in (layout.BYTES, layout.WORDS):
                return name.text
        this = slots[5]
        assert isinstance(this, ImageObject)
        return f"{self.class_name(this)} class"

    def globals(self) -> dict[str, Value]:
        association = self.special_objects[layout.SPECIAL_SMALLTALK]
        assert isinstance(association, ImageObject)
        smalltalk = association.slots[1]
        assert isinstance(smalltalk, ImageObject)
        return dict(self._associations(smalltalk))

    def _associations(self, dictionary: ImageObject) -> Iterator[tuple[str, Value]]:
        array = dictionary.slots[1]
        assert isinstance(array, ImageObject)
        for each in array.slots:
            if isinstance(each, ImageObject) and each is not self.nil:
                key, value = each.slots[:2]
                assert isinstance(key, ImageObject)
                yield key.text, value

    def classes(self) -> dict[str, ImageObject]:
        """Class name ► class, from the class table."""
        return {self.class_name(each): each for each in self.class_table.values()}

    def class_variables(self, class_object: ImageObject) -> dict[str, Value]:
        pool = class_object.slots[7]
        return {} if not isinstance(pool, ImageObject) or pool is self.nil else dict(self._associations(pool))

    def methods(self) -> Iterator[ImageMethod]:
        """Every method of every class and metaclass, in the order of the class table and the method dictionaries."""
        packages, sources = self._source_store()
        for index in sorted(self.class_table):
            if index == layout.SECOND_SMALL_INTEGER_INDEX:
                continue
            behavior = self.class_table[index]
            name = self.class_name(behavior)
            dictionary = behavior.slots[1]
            assert isinstance(dictionary, ImageObject)
            _, values, *selectors = dictionary.slots
            assert isinstance(values, ImageObject)
            for selector, method in zip(selectors, values.slots, strict=True):
                if isinstance(method, ImageObject) and method is not self.nil:
                    assert isinstance(selector, ImageObject)
                    yield self._method(name, selector.text, method, packages, sources)

    def _source_store(self) -> tuple[list[str], list[bytes]]:
        store = self.class_variables(self.classes()["SourceStore"])["Default"]
        assert isinstance(store, ImageObject)
        names, sources = store.slots[:2]
        assert isinstance(names, ImageObject) and isinstance(sources, ImageObject)
        return (
            [each.text for each in names.slots if isinstance(each, ImageObject)],
            [each.body for each in sources.slots if isinstance(each, ImageObject)],
        )

    def _method(
        self, class_name: str, selector: str, method: ImageObject, packages: list[str], sources: list[bytes]
    ) -> ImageMethod:
        header, *literals = method.slots
        assert isinstance(header, int)
        start = 4 * (1 + len(literals))
        trailer = method.body[-8:]
        offset = int.from_bytes(trailer[:4], "little")
        length, package = int.from_bytes(trailer[4:7], "little"), trailer[7]
        has_source = package < len(packages)
        return ImageMethod(
            class_name=class_name.removesuffix(" class"),
            is_class_side=class_name.endswith(" class"),
            selector=selector,
            header=header,
            literals=tuple(literals),
            bytecodes=method.body[start:-8],
            source=sources[package][offset : offset + length].decode("utf-8") if has_source else None,
            package=packages[package] if has_source else None,
        )

    # Sanity

    def problems(self) -> list[str]:
        """What is wrong with the image, in words; nothing where it is sound."""
        return [*self._class_problems(), *self._hashing_problems(), *self._method_problems()]

    def _class_problems(self) -> Iterator[str]:
        seen: dict[int, int] = {}
        for index, each in self.class_table.items():
            if index != layout.SECOND_SMALL_INTEGER_INDEX and each.hash != index:
                yield f"class at index {index} has hash {each.hash}"
            if index != layout.SECOND_SMALL_INTEGER_INDEX and seen.setdefault(each.address, index) != index:
                yield f"class {self.class_name(each)} has two indexes"
        for each in self.ordinary_objects():
            if each.class_index not in self.class_table:
                yield f"object at {each.address:#x} has class index {each.class_index}, which is not in the class table"
                continue
            class_format = each.class_object.slots[2]
            assert isinstance(class_format, int)
            if class_format >> 16 != each.format:
                yield f"{each.class_name} at {each.address:#x} has format {each.format}, its class {class_format >> 16}"
            named = class_format & 0xFFFF
            if each.format <= 5 and (each.pointer_count < named or (each.format <= 1 and each.pointer_count != named)):
                yield f"{each.class_name} at {each.address:#x} has {each.pointer_count} slots, its class names {named}"

    def _hashing_problems(self) -> Iterator[str]:
        for each in self.ordinary_objects():
            match each.class_name:
                case "IdentityDictionary" | "SystemDictionary":
                    yield from self._misplaced(each, lambda association: self._key(association).hash)
                case "Set":
                    yield from self._misplaced(each, lambda symbol: layout.string_hash(symbol.text))
                case "MethodDictionary":
                    yield from self._method_dictionary_problems(each)

    @staticmethod
    def _key(association: ImageObject) -> ImageObject:
        key = association.slots[0]
        assert isinstance(key, ImageObject)
        return key

    def _misplaced(self, collection: ImageObject, hash_of: object) -> Iterator[str]:
        assert callable(hash_of)
        tally, array = collection.slots[:2]
        assert isinstance(array, ImageObject)
        table = array.slots
        elements = [each for each in table if isinstance(each, ImageObject) and each is not self.nil]
        if len(elements) != tally:
            yield f"{collection.class_name} has tally {tally} and {len(elements)} elements"
        for each in elements:
            index = hash_of(each) % len(table)
            while table[index] is not each:
                if table[index] is self.nil:
                    yield f"{collection.class_name} does not find {each!r}"
                    break
                index = (index + 1) % len(table)

    def _method_dictionary_problems(self, dictionary: ImageObject) -> Iterator[str]:
        tally, values, *keys = dictionary.slots
        assert isinstance(values, ImageObject)
        selectors = [each for each in keys if isinstance(each, ImageObject) and each is not self.nil]
        if len(selectors) != tally or len(values.slots) != len(keys) or len(keys) & (len(keys) - 1):
            yield f"method dictionary with tally {tally}, {len(selectors)} selectors, {len(keys)} places"
        for each in selectors:
            index = each.hash & (len(keys) - 1)
            while keys[index] is not each:
                if keys[index] is self.nil:
                    yield f"method dictionary does not find {each.text}"
                    break
                index = (index + 1) % len(keys)

    def _method_problems(self) -> Iterator[str]:
        for each in self.ordinary_objects():
            if not each.is_method:
                continue
            binding = each.slots[-1]
            if not isinstance(binding, ImageObject) or binding.class_name != "Association":
                yield f"method at {each.address:#x} does not end in its class's Association"
            if len(each.body) < each.pointer_count * 4 + 8:
                yield f"method at {each.address:#x} has no room for its trailer"


def read_image(data: bytes) -> Image:
    return Image(data)
