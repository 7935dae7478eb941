"""Reads headers of the PROXY protocol, versions 1 and 2: the client's address, sent first on a connection.

Source: HAProxy's doc/proxy-protocol.txt, "The PROXY protocol, versions 1 & 2", whose sections are named
below. Sans-I/O: `read_header` is given the bytes that have arrived so far.
"""

from __future__ import annotations

import ipaddress
import re

from ostler.records import record

LONGEST = 4096
"""Bytes of a header with all its TLVs, as in nginx. Its length field of 16 bits could announce 64 KiB."""

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""What a header of version 2 begins with (section 2.2)."""

_V1 = b"PROXY "
_V1_LONGEST = 107  # section 2.1: the worst case, its CRLF included
# Section 2.1: one space between the parts, no leading zeros in a number.
_V1_LINE = re.compile(
    r"PROXY (TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN( .*)?", re.DOTALL)

_V2_FIXED = 16
# Section 2.2: the low four bits of the 13th byte, and the whole of the 14th.
_LOCAL, _PROXY = 0, 1
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_SIZES = {_UNSPEC: 0, _TCP4: 12, 0x12: 12, _TCP6: 36, 0x22: 36, _UNIX: 216, 0x32: 216}
"""Bytes of both addresses; 0x12, 0x22 and 0x32 are datagrams, which a stream cannot have been."""

_PP2_TYPE_SSL = 0x20
_PP2_CLIENT_SSL = 0x01


class Malformed(ValueError):
    """The bytes are no valid header; the text says why."""


@record
class Origin:
    """The client of a connection, as its header says."""

    kind: str
    """`inet`: see `client`; `unix`: a peer on a Unix socket; `local`: the proxy itself; `unknown`."""
    client: tuple[str, int] | None = None
    tls: bool = False
    """Whether the client spoke TLS to the proxy; only version 2 can tell."""


def read_header(data: bytes) -> tuple[Origin, int] | None:
    """Return the origin and the size of the header that `data` begins with; None when more of it is needed.

    Raises:
        Malformed: there is no header, or one that breaks the protocol, or a longer one than LONGEST.
    """
    if data.startswith(SIGNATURE):
        return _read_v2(data)
    if data.startswith(_V1):
        return _read_v1(data)
    if _V1.startswith(data) or SIGNATURE.startswith(data):
        return None
    raise Malformed("it does not begin with a PROXY protocol header")


def _read_v1(data: bytes) -> tuple[Origin, int] | None:
    """Section 2.1: one line of text."""
    line, end, _ = data[:_V1_LONGEST].partition(b"\r\n")
    if not end:
        if len(data) >= _V1_LONGEST:
            raise Malformed(f"its PROXY line is longer than {_V1_LONGEST} bytes")
        return None
    size = len(line) + 2
    if _V1_UNKNOWN.fullmatch(line):
        return Origin("unknown"), size
    match = _V1_LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise Malformed("its PROXY line is malformed")
    family, *addresses, source_port, destination_port = match.groups()
    read = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        source, _ = (read(address) for address in addresses)
    except ValueError:
        raise Malformed(f"its PROXY line has an address that is not {family}") from None
    if int(source_port) > 65535 or int(destination_port) > 65535:
        raise Malformed("its PROXY line has a port above 65535")
    return Origin("inet", (_text(source), int(source_port))), size


def _read_v2(data: bytes) -> tuple[Origin, int] | None:
    """Section 2.2: a binary header. What is wrong is refused as soon as it has arrived."""
    if len(data) > 12 and data[12] >> 4 != 2:
        raise Malformed(f"its PROXY header is of version {data[12] >> 4}")
    if len(data) < _V2_FIXED:
        return None
    command, family = data[12] & 0x0F, data[13]
    size = _V2_FIXED + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise Malformed(f"its PROXY header has the unknown command {command}")
    if size > LONGEST:
        raise Malformed(f"its PROXY header is longer than {LONGEST} bytes")
    # Section 2.2, "LOCAL": the family and the bytes after it are ignored.
    if command == _PROXY:
        if family not in _SIZES:
            raise Malformed(f"its PROXY header has the unknown family and protocol 0x{family:02x}")
        if size < _V2_FIXED + _SIZES[family]:
            raise Malformed("its PROXY header is too short for its addresses")
    if len(data) < size:
        return None
    if command == _LOCAL:
        return Origin("local"), size
    return _origin(family, data[_V2_FIXED:size]), size


def _origin(family: int, block: bytes) -> Origin:
    if family not in (_TCP4, _TCP6, _UNIX):
        return Origin("unknown")  # a family that is not supported counts as UNSPEC
    tls = _speaks_tls(block[_SIZES[family] :])
    if family == _TCP4:
        return Origin("inet", (str(ipaddress.IPv4Address(block[:4])), _number(block[8:10])), tls)
    if family == _TCP6:
        return Origin("inet", (_text(ipaddress.IPv6Address(block[:16])), _number(block[32:34])), tls)
    return Origin("unix", None, tls)


def _speaks_tls(tlvs: bytes) -> bool:
    """Sections 2.2.1 and 2.2.6: one bit of the TLV PP2_TYPE_SSL counts; all other TLVs are skipped."""
    found = False
    while tlvs:
        end = 3 + _number(tlvs[1:3])
        if len(tlvs) < end:
            raise Malformed("its PROXY header has a TLV that ends beyond it")
        if tlvs[0] == _PP2_TYPE_SSL and end > 3:
            found = bool(tlvs[3] & _PP2_CLIENT_SSL)
        tlvs = tlvs[end:]
    return found


def _number(two: bytes) -> int:
    return int.from_bytes(two, "big")


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    # In the form of the kernel's peer names; before 3.13, Python writes ::ffff:102:304.
    mapped = getattr(address, "ipv4_mapped", None)
    return str(address) if mapped is None else f"::ffff:{mapped}"
