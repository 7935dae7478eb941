"""Returns the subject of a certificate as one string (RFC 4514), read from the certificate's DER. Pure.

The ssl module has names of its own for the types of a subject, and does not give the values of types that it
does not know. Only the path to the subject is read here (DER: ITU-T X.690).
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

# Section 3 of RFC 4514, and further descriptors of RFC 4519. emailAddress is not an LDAP descriptor, but
# OpenSSL and nginx write it in names of this form, and an OID with hexadecimal digits would be of no use.
_NAMES = MappingProxyType(
    {
        "2.5.4.3": "CN",
        "2.5.4.4": "SN",
        "2.5.4.5": "serialNumber",
        "2.5.4.6": "C",
        "2.5.4.7": "L",
        "2.5.4.8": "ST",
        "2.5.4.9": "STREET",
        "2.5.4.10": "O",
        "2.5.4.11": "OU",
        "2.5.4.12": "title",
        "2.5.4.13": "description",
        "2.5.4.15": "businessCategory",
        "2.5.4.17": "postalCode",
        "2.5.4.41": "name",
        "2.5.4.42": "GN",
        "2.5.4.43": "initials",
        "2.5.4.44": "generationQualifier",
        "2.5.4.46": "dnQualifier",
        "0.9.2342.19200300.100.1.1": "UID",
        "0.9.2342.19200300.100.1.25": "DC",
        "1.2.840.113549.1.9.1": "emailAddress",
    }
)

_OID, _SEQUENCE, _SET, _VERSION = 0x06, 0x30, 0x31, 0xA0
# UTF8String, NumericString, PrintableString, IA5String, VisibleString; TeletexString is read as Latin-1, as
# OpenSSL does; UniversalString and BMPString have four and two bytes a character.
_ENCODINGS = MappingProxyType(
    {0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x16: "ascii", 0x1A: "ascii", 0x14: "latin-1"}
    | {0x1C: "utf-32-be", 0x1E: "utf-16-be"}
)

DerElement = tuple[int, bytes, bytes]
"""Tag; content; and the whole element: tag, length and content, as they stand in the certificate."""


def subject(certificate: bytes) -> str:
    """Return the subject of a DER-encoded certificate in the form of RFC 4514: the last part comes first.

    Raises:
        ValueError: the bytes are not a certificate.
    """
    try:
        _, whole, _ = _one(certificate)
        fields = _elements(_one(whole)[1])
        first = next(fields)
        # RFC 5280, section 4.1: version (by default absent), number, signature, issuer, validity, subject.
        skip = 4 if first[0] == _VERSION else 3
        for _ in range(skip):
            next(fields)
        tag, name, _ = next(fields)
    except (StopIteration, IndexError):
        raise ValueError("no certificate") from None
    if tag != _SEQUENCE:
        raise ValueError("no certificate")
    # Section 2.1: from the last RDN to the first. Section 2.2: the parts of one RDN are joined by a plus.
    parts = ["+".join(_attribute(pair) for _, pair, _ in _elements(rdn)) for _, rdn, _ in _elements(name)]
    return ",".join(reversed(parts))


def _attribute(pair: bytes) -> str:
    (_, oid_bytes, _), (tag, content, raw) = _elements(pair)
    oid = _dotted(oid_bytes)
    name = _NAMES.get(oid)
    if name is not None and tag in _ENCODINGS:
        try:
            return f"{name}={escape(content.decode(_ENCODINGS[tag]))}"
        except UnicodeDecodeError:
            pass
    # Section 2.4: where the value has no string form, or its type no name, its BER encoding in hexadecimal.
    return f"{name or oid}=#{raw.hex()}"


def escape(value: str) -> str:
    """Return an attribute's value, escaped as section 2.4 demands; control characters are escaped, too."""
    shown = []
    for index, char in enumerate(value):
        if char in '"+,;<>\\' or (index == 0 and char in " #") or (index == len(value) - 1 and char == " "):
            shown.append(f"\\{char}")
        elif char < " " or char == "\x7f":
            shown.append(f"\\{ord(char):02x}")
        else:
            shown.append(char)
    return "".join(shown)


def _dotted(content: bytes) -> str:
    """An object identifier (X.690, section 8.19)."""
    numbers, number = [], 0
    for byte in content:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(str(n) for n in (first, numbers[0] - 40 * first, *numbers[1:]))


def _one(data: bytes) -> DerElement:
    return next(_elements(data))


def _elements(data: bytes) -> Iterator[DerElement]:
    """Yield the elements of `data`, one after the other."""
    at = 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:  # section 8.1.3.5: the long form
            start += length & 0x7F
            length = int.from_bytes(data[at + 2 : start], "big")
        end = start + length
        if end > len(data):
            raise ValueError("an element ends behind the one that contains it")
        yield tag, data[start:end], data[at:end]
        at = end
