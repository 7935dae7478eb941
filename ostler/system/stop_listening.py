"""Ends a listening socket without a reset for a client: `refuse_new`, accept what is left, `shut_down`.

To close a TCP socket resets every connection that waits in its queue, also one whose handshake was completed
after the last accept(2). So `refuse_new` comes first. On a TCP socket it has the kernel ignore SYNs (Linux):
the handshakes that are under way are completed, and no other begins. Give them HANDSHAKE_TIME, and accept
them. What the kernel leaves undone: it cannot be told to refuse a SYN while the socket still listens. A
client whose SYN is ignored sends it again after a second (tcp(7)), and is refused then.

Both functions have their effect for every process that has the socket.
"""

from __future__ import annotations

import array
import contextlib
import socket
import struct
import sys

HANDSHAKE_TIME = 0.1
"""Seconds from `refuse_new` on for handshakes that are under way: a round trip of the network."""

_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>; Python has no name for it
_FLAGS = 13
"""The offset of the flags in a TCP header (RFC 9293, section 3.1)."""
_SYN, _ACK = 0x02, 0x10

_IGNORE_SYN = (
    # struct sock_filter: code, jump if true, jump if false, constant (<linux/bpf_common.h>)
    (0x30, 0, 0, _FLAGS),  # BPF_LD | BPF_B | BPF_ABS
    (0x54, 0, 0, _SYN | _ACK),  # BPF_ALU | BPF_AND | BPF_K
    (0x15, 0, 1, _SYN),  # BPF_JMP | BPF_JEQ | BPF_K
    (0x06, 0, 0, 0),  # BPF_RET | BPF_K: drop the segment
    (0x06, 0, 0, 2**32 - 1),  # BPF_RET | BPF_K: keep all of it
)


def refuse_new(sock: socket.socket) -> None:
    """Let no further client connect; those that have, or whose TCP handshake has begun, can be accepted.

    Where the system has no such means, nothing changes.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_UNIX:
            sock.shutdown(socket.SHUT_RD)  # connect(2) is refused, and the queue stays
        else:
            code = array.array("B", b"".join(struct.pack("HBBI", *line) for line in _IGNORE_SYN))
            # struct sock_fprog: how many instructions, and their address; the kernel copies them.
            program = struct.pack("HP", len(_IGNORE_SYN), code.buffer_info()[0])
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def shut_down(sock: socket.socket) -> None:
    """End listening for every process that has the socket, so that its address can be listened on again.

    An application may have forked a process that still has the socket open. What waits in the queue is reset.
    """
    with contextlib.suppress(OSError):  # it does not listen any more
        sock.shutdown(socket.SHUT_RDWR)
