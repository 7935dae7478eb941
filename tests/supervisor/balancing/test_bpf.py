"""The program that the kernel runs for each new connection, run here by a small interpreter."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import pytest

from ostler.supervisor.balancing.bpf import Instruction, encode, program


def run(code: Sequence[Instruction], random: int) -> int:
    """What the kernel makes of it (Linux, Documentation/networking/filter.rst)."""
    value, position = 0, 0
    while True:
        instruction = code[position]
        position += 1
        match instruction.code:
            case 0x20:
                assert instruction.constant == 0xFFFFF038  # SKF_AD_OFF + SKF_AD_RANDOM
                value = random
            case 0x94:
                value %= instruction.constant
            case 0x15:
                equal = value == instruction.constant
                position += instruction.jump_true if equal else instruction.jump_false
            case 0x06:
                return instruction.constant
            case other:
                raise AssertionError(f"unexpected {other:#x}")


@pytest.mark.parametrize("queues", [(0,), (3,), (0, 1), (1, 4, 7), tuple(range(256))], ids=len)
def test_every_queue_named_gets_its_share_and_no_other_gets_any(queues: tuple[int, ...]) -> None:
    code = program(queues)
    shares = collections.Counter(run(code, number) for number in range(10 * len(queues)))
    assert shares == dict.fromkeys(queues, 10)


def test_the_largest_program_is_one_that_the_kernel_takes() -> None:
    assert len(program(range(256))) <= 4096  # BPF_MAXINSNS


def test_an_instruction_has_eight_bytes() -> None:
    assert len(encode(program((0, 1)))) == 8 * len(program((0, 1)))
