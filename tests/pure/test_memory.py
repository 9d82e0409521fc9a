"""Memory figures of real processes."""

import os

from minicorn.system.memory import Memory, read_memory


def test_what_is_shared_and_private_makes_up_what_is_resident() -> None:
    memory = read_memory(os.getpid())
    assert memory.rss == memory.shared + memory.private
    assert memory.private <= memory.pss <= memory.rss


def test_a_process_that_is_not_there_uses_nothing() -> None:
    assert read_memory(2**22 + 1) == Memory()
