"""The classic BPF program that picks the listening queue of each new connection. Pure.

The kernel runs a program that was attached with SO_ATTACH_REUSEPORT_CBPF for each SYN. It returns the index
of a socket in its SO_REUSEPORT group, in the order in which they began to listen (socket(7); Linux,
Documentation/networking/filter.rst). It may be replaced at any time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple


class Instruction(NamedTuple):
    """One `struct sock_filter`."""

    code: int
    jump_true: int
    jump_false: int
    constant: int


# <linux/bpf_common.h>, <linux/filter.h>
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_RANDOM = 2**32 - 0x1000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM


def program(queues: Sequence[int]) -> list[Instruction]:
    """Return a program that spreads connections evenly, at random, over the queues with these numbers.

    Without a program, the kernel uses a hash of the addresses. The few connections of a proxy then always
    meet the same queues.
    """
    *others, last = queues
    load = Instruction(_LOAD_WORD, 0, 0, _RANDOM)
    code = [load, Instruction(_MODULO, 0, 0, len(queues))]
    for position, queue in enumerate(others):
        code += [Instruction(_JUMP_IF_EQUAL, 0, 1, position), Instruction(_RETURN, 0, 0, queue)]
    return [*code, Instruction(_RETURN, 0, 0, last)]


def encode(code: Sequence[Instruction]) -> bytes:
    """Return the program as an array of `struct sock_filter`, in this machine's byte order."""
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
