#!/usr/bin/env python3
"""Fails if a decode kernel moves registers to uniform ones between its products.

    uniform_registers.py CUBIN-FOLDER nvcc OPTION ... -- SOURCE ...

The tensor cores take their descriptors from uniform registers (UR). Where ptxas cannot tell that a warp is whole, for
which code of another role may be enough, it makes descriptors in ordinary registers and moves four of them before each
product (R2UR): a product of 16 rows takes 57 cycles then instead of 30. It gives no notice, so machine code is looked
at: instructions of sm_90 have 16 bytes, their operation in the lowest 9 bits.
"""
import pathlib
import struct
import subprocess
import sys

HGMMA, R2UR = 0x1F0, 0x0CA  # a product; a move to a uniform register
MOST_MOVES = 16  # of a kernel, between its first and last product: some belong to its loops
INSTRUCTION_BYTES = 16


def operations(code):
    return [struct.unpack_from("<H", code, at)[0] & 0x1FF for at in range(0, len(code), INSTRUCTION_BYTES)]


def moves_between_products(code):
    """None: the code has no products."""
    found = operations(code)
    if HGMMA not in found:
        return None
    first, last = found.index(HGMMA), len(found) - 1 - found[::-1].index(HGMMA)
    return found[first:last].count(R2UR)


def kernels(elf):
    """(name, machine code) of each kernel of a cubin."""
    (sections_at,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, sections_at + i * size) for i in range(count)]
    names_at = headers[names_index][4]
    for name, _, _, _, offset, length in headers:
        text = elf[names_at + name : elf.index(b"\0", names_at + name)].decode()
        if text.startswith(".text."):
            yield text.removeprefix(".text."), elf[offset : offset + length]


def main(folder, command, sources):
    wrong, looked_at = [], 0
    for source in sources:
        cubin = pathlib.Path(folder) / (pathlib.Path(source).stem + ".cubin")
        subprocess.run([*command, "-cubin", "-o", str(cubin), source], check=True)
        for name, code in kernels(cubin.read_bytes()):
            moves = moves_between_products(code)
            looked_at += moves is not None
            if moves is not None and moves > MOST_MOVES:
                wrong.append(f"{name}: {moves} moves to uniform registers between products; at most {MOST_MOVES}")
    print("\n".join(wrong) or f"{looked_at} kernels")
    return 1 if wrong or looked_at == 0 else 0


if __name__ == "__main__":
    split = sys.argv.index("--")
    sys.exit(main(sys.argv[1], sys.argv[2:split], sys.argv[split + 1 :]))
