"""Memory of a Parquet file's rows as Python objects: repeated values take almost no space in the file."""

from __future__ import annotations

from typing import Any

#: An offset, a validity bit and a small number, for each value of a chunk.
_BYTES_A_VALUE = 8


def text_columns(file: Any) -> list[str]:
    """Return the paths of a file's texts, nested ones too.

    Read as dictionaries, a text that repeats takes the memory of one.
    """
    kinds = {field.name: field.type for field in file.schema_arrow}
    columns = [file.schema.column(index) for index in range(len(file.schema))]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    return [path for path in texts if _is_plain(kinds.get(path) or kinds.get(path.split(".", 1)[0]))]


def group_bytes(group: Any) -> int:
    """Return the approximate memory of a row group's values, read as dictionaries."""
    values = sum(group.column(index).num_values for index in range(group.num_columns))
    return int(max(group.total_byte_size, values * _BYTES_A_VALUE))


def size_of(array: Any) -> int:
    """Return the bytes and number of an array's values, repeated ones included, without creating them."""
    import pyarrow  # noqa: PLC0415 - an extra, as in ``parquet_rows``
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    types, kind = pyarrow.types, array.type
    if isinstance(array, pyarrow.ExtensionArray):
        return size_of(array.storage)
    if types.is_struct(kind):
        return len(array) + sum(map(size_of, array.flatten()))
    if types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return len(array) + sum(size_of(part.slice(start, end - start)) for part in (array.keys, array.items))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return len(array) + size_of(array.flatten())
    is_repeating = types.is_dictionary(kind)
    values = array.dictionary if is_repeating else array
    if types.is_string_view(values.type) or types.is_binary_view(values.type):
        values = values.cast(pyarrow.large_binary())
    if not _is_text(types, values.type):
        return len(array)
    lengths = pc.binary_length(values)
    text_bytes = pc.sum(pc.take(lengths, array.indices) if is_repeating else lengths, min_count=0)
    return len(array) + int(text_bytes.as_py())


def _is_text(types: Any, kind: Any) -> bool:
    tests = (types.is_string, types.is_binary, types.is_large_string, types.is_large_binary)
    return any(test(kind) for test in tests)


def _is_plain(kind: Any) -> bool:
    """Return True if a type contains no extension type; those are made of plain texts alone."""
    import pyarrow  # noqa: PLC0415 - an extra, as in ``parquet_rows``

    if kind is None or isinstance(kind, pyarrow.BaseExtensionType):
        return False
    return all(_is_plain(kind.field(index).type) for index in range(kind.num_fields))
