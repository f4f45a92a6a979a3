# SPDX-License-Identifier: Apache-2.0
"""The record and the seal at the end of an ONNX file, read and written without the onnx package.

An ONNX file is one protobuf message, and protobuf lets fields be appended: the verified bytes stay as they are, the
record follows as entries of ``metadata_props``, and the last entry holds the SHA-256 of everything before it. So one
pass over the bytes finds any change, and reading the record skips the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from leyden.export.errors import DamagedFileError

RECORD_KEY = "leyden"
SEAL_KEY = "leyden.sha256"
_METADATA_PROPS = 14
_LENGTH_DELIMITED = 2


def seal(path: Path, record: str, metadata: Mapping[str, Any]) -> None:
    """Append the record, the user's metadata under their own keys for other tools, and the seal."""
    entries = [
        _entry(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in metadata.items()
        if not key.startswith(RECORD_KEY)
    ]
    with path.open("ab") as file:
        file.write(b"".join(entries) + _entry(RECORD_KEY, record))
    digest = sha256(path)
    with path.open("ab") as file:
        file.write(_entry(SEAL_KEY, digest))


def sha256(path: Path) -> str:
    """Return the digest of a whole file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed_bytes(path: Path) -> bytes:
    """Return the content of a file whose seal is whole.

    Raises:
        DamagedFileError: If the file was changed, was cut, or bears no seal.
    """
    content = path.read_bytes()
    length = len(_entry(SEAL_KEY, "0" * 64))
    body, last = content[:-length], content[-length:]
    if SEAL_KEY.encode() not in last:
        raise _not_ours(path)
    if last != _entry(SEAL_KEY, hashlib.sha256(body).hexdigest()):
        raise DamagedFileError(
            f"{path.name} is damaged: its SHA-256 is not the one it was sealed with; export it again"
        )
    return content


def read_record(path: Path) -> str:
    """Return the record without reading the weights.

    Raises:
        DamagedFileError: If there is none.
    """
    try:
        with path.open("rb") as file:
            for key, value in _metadata(file):
                if key == RECORD_KEY:
                    return value
    except (ValueError, IndexError) as error:
        raise DamagedFileError(f"{path.name} is damaged: it is no ONNX file ({error})") from error
    raise _not_ours(path)


def _not_ours(path: Path) -> DamagedFileError:
    return DamagedFileError(f"{path.name} bears no seal of leyden.export: it is cut short, or another program wrote it")


def _entry(key: str, value: str) -> bytes:
    """Encode one entry of ``metadata_props``."""
    body = b"".join(_field(number, text.encode()) for number, text in ((1, key), (2, value)))
    return _field(_METADATA_PROPS, body)


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _metadata(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Walk over the fields of the model and yield the entries of its metadata."""
    size = os.fstat(file.fileno()).st_size
    while file.tell() < size:
        tag = _read_varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _read_varint(file)
            continue
        if kind != _LENGTH_DELIMITED:
            raise ValueError(f"field {number} has the wire type {kind}")
        length = _read_varint(file)
        if file.tell() + length > size:
            raise ValueError(f"field {number} ends behind the file")
        if number == _METADATA_PROPS:
            yield _split_entry(file.read(length))
        else:
            file.seek(length, os.SEEK_CUR)


def _split_entry(body: bytes) -> tuple[str, str]:
    texts: dict[int, str] = {}
    position = 0
    while position < len(body):
        number = body[position] >> 3
        length, position = _varint_at(body, position + 1)
        texts[number] = body[position : position + length].decode()
        position += length
    return texts.get(1, ""), texts.get(2, "")


def _varint_at(body: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = body[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, position


def _read_varint(file: BinaryIO) -> int:
    number = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise ValueError("a field is cut")
        number |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return number
