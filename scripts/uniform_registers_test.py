#!/usr/bin/env python3
"""Machine code with and without moves between products for uniform_registers.py, in a cubin made by hand."""

import pathlib
import struct
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import uniform_registers  # noqa: E402

PRODUCT, MOVE, OTHER = 0x79F0, 0x72CA, 0x7C10


def code(*operations):
    return b"".join(struct.pack("<HHIQ", operation, 0, 0, 0) for operation in operations)


def cubin(name, text):
    """An ELF file of three sections: nothing, names, one kernel."""
    names = b"\0.shstrtab\0.text." + name + b"\0"
    names_at, text_at = 64, 64 + len(names)
    sections_at = text_at + len(text)
    headers = b"".join(
        struct.pack("<IIQQQQIIQQ", where, 1, 0, 0, offset, length, 0, 0, 1, 0)
        for where, offset, length in ((0, 0, 0), (1, names_at, len(names)), (11, text_at, len(text)))
    )
    elf_header = bytearray(64)
    struct.pack_into("<Q", elf_header, 0x28, sections_at)
    struct.pack_into("<HHH", elf_header, 0x3A, 64, 3, 1)
    return bytes(elf_header) + names + text + headers


class UniformRegisters(unittest.TestCase):
    def test_counts_moves_between_products_alone(self):
        self.assertEqual(uniform_registers.moves_between_products(code(MOVE, PRODUCT, MOVE, OTHER, PRODUCT, MOVE)), 1)
        self.assertEqual(uniform_registers.moves_between_products(code(PRODUCT, *[MOVE] * 40, PRODUCT)), 40)

    def test_says_where_there_are_no_products(self):
        self.assertIsNone(uniform_registers.moves_between_products(code(MOVE, OTHER)))

    def test_finds_kernels(self):
        text = code(PRODUCT, MOVE, PRODUCT)
        self.assertEqual(list(uniform_registers.kernels(cubin(b"decode", text))), [("decode", text)])


if __name__ == "__main__":
    unittest.main()
