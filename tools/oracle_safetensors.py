#!/usr/bin/env python3
"""Compares cortado's safetensors files with the PyPI library: oracle_safetensors.py LIBCT_IO.SO

Every dtype and some shapes, written by each and read by the other; then damaged copies of a file,
which both must judge alike. Needs the packages safetensors and numpy. Exits 1 at a difference.
"""
import ctypes
import json
import os
import random
import re
import struct
import sys
import tempfile

import numpy
import safetensors
import safetensors.numpy


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("text", ctypes.c_char * 768)]


class Out(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("rank", ctypes.c_int),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("data", ctypes.c_void_p),
                ("size_bytes", ctypes.c_size_t)]


class Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("rank", ctypes.c_int),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("count", ctypes.c_int64),
                ("data", ctypes.c_void_p), ("size_bytes", ctypes.c_size_t)]


NUMPY = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
         "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?"}
WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8,
         "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1,
         "C64": 8}


class Cortado:
    """The few functions of libcortado that are met here."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(os.path.abspath(path))
        self.lib.ct_st_count.restype = ctypes.c_size_t
        self.lib.ct_st_count.argtypes = [ctypes.c_void_p]
        self.lib.ct_st_get.restype = ctypes.POINTER(Tensor)
        self.lib.ct_st_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.lib.ct_st_close.argtypes = [ctypes.c_void_p]
        self.lib.ct_st_open_bytes.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p,
                                              ctypes.c_void_p, ctypes.c_void_p]
        self.lib.ct_st_write.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t,
                                         ctypes.c_void_p]

    def write(self, path, tensors):
        """tensors: list of (name, dtype, shape, bytes)."""
        out = (Out * len(tensors))()
        for slot, (name, dtype, shape, data) in zip(out, tensors):
            slot.name, slot.dtype, slot.rank = name.encode(), dtype.encode(), len(shape)
            slot.shape = (ctypes.c_int64 * len(shape))(*shape)
            slot.data = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
            slot.size_bytes = len(data)
        err = Error()
        status = self.lib.ct_st_write(path.encode(), out, len(tensors), ctypes.byref(err))
        if status:
            sys.exit(f"ct_st_write: {err.text.decode()}")

    def read(self, raw):
        """{name: (dtype, shape, bytes)}, or the error's text."""
        err, handle = Error(), ctypes.c_void_p()
        if self.lib.ct_st_open_bytes(raw, len(raw), b"bytes", ctypes.byref(handle),
                                     ctypes.byref(err)):
            return err.text.decode()
        found = {}
        for i in range(self.lib.ct_st_count(handle)):
            t = self.lib.ct_st_get(handle, i).contents
            found[t.name.decode()] = (t.dtype.decode(), t.shape[:t.rank],
                                      ctypes.string_at(t.data, t.size_bytes))
        self.lib.ct_st_close(handle)
        return found


def reference_read(raw):
    """The same from the PyPI library."""
    try:
        return {name: (t["dtype"], list(t["shape"]), bytes(t["data"]))
                for name, t in safetensors.deserialize(raw)}
    except safetensors.SafetensorError as error:
        return str(error)


def sample(rng):
    """Tensors of every dtype in shapes that are odd, empty and scalar."""
    tensors = []
    for dtype, width in sorted(WIDTH.items(), key=lambda item: -item[1]):
        for shape in ([], [0], [1], [7], [3, 5], [2, 3, 1, 65]):
            size = width
            for n in shape:
                size *= n
            data = bytes(rng.randrange(2) for _ in range(size)) if dtype == "BOOL" else \
                rng.randbytes(size)
            tensors.append((f'{dtype}.{"x".join(map(str, shape))} "\\ \n é😀', dtype, shape, data))
    return tensors


# Where cortado is stricter on purpose, or reads less: what its message then says.
STRICTER = ["twice", "not supported", "a rank of at most 8", "an integer from 0 to",
            "expected an object", "at most 128 nested values"]


TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[0-9]+|[\[\]{},:]')
OTHERS = [b'"a"', b'"b"', b'"__metadata__"', b'"dtype"', b'"shape"', b'"data_offsets"', b'"U8"',
          b'"F32"', b'"F16"', b'"F4"', b'"X"', b'"\\u0061"', b'"\\ud800"', b'"a\\u0000"', b"[]",
          b"{}", b"null", b"true", b"0", b"1", b"2", b"3", b"8", b"11", b"12", b"-1", b"-0", b"01",
          b"1.0", b"2e0", b"9223372036854775807", b"9223372036854775808", b"18446744073709551615",
          b"18446744073709551616", b" ", b",", b""]


def damaged(rng, header, data):
    """A small file with tokens or bytes of its header changed."""
    for _ in range(rng.randrange(1, 3)):
        if rng.random() < 0.7:
            token = rng.choice(list(TOKEN.finditer(header)) or [None])
            begin, end = token.span() if token else (0, 0)
            header = header[:begin] + rng.choice(OTHERS) + header[end:]
        else:
            at = rng.randrange(len(header) + 1)
            header = header[:at] + bytes([rng.randrange(256)]) + header[at + rng.randrange(2):]
    if rng.random() < 0.1:
        data = data + b"x" if rng.random() < 0.5 else data[:-1]
    length = len(header) if rng.random() < 0.98 else rng.choice([0, 1, 2**63, 2**64 - 1, 10**8 + 1])
    return struct.pack("<Q", length) + header + data


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    cortado, rng, failures = Cortado(sys.argv[1]), random.Random(1), 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.safetensors")
        tensors = sample(rng)
        expected = {name: (dtype, shape, data) for name, dtype, shape, data in tensors}
        cortado.write(path, tensors)
        with open(path, "rb") as file:
            raw = file.read()
        failures += reference_read(raw) != expected
        with safetensors.safe_open(path, "numpy") as opened:
            failures += opened.metadata() != {"format": "pt"}
            for name, dtype, shape, data in tensors:
                if dtype in NUMPY:
                    array = opened.get_tensor(name)
                    failures += list(array.shape) != shape or array.tobytes() != data
        print(f"{len(tensors)} tensors written by cortado, read by safetensors "
              f"{safetensors.__version__}: {failures} differences")

        arrays = {name: numpy.frombuffer(data, NUMPY[dtype]).reshape(shape)
                  for name, dtype, shape, data in tensors if dtype in NUMPY}
        safetensors.numpy.save_file(arrays, path, metadata={"k": "v"})
        with open(path, "rb") as file:
            back = cortado.read(file.read())
        before = failures
        failures += back != {name: expected[name] for name in arrays}
        print(f"{len(arrays)} tensors written by safetensors, read by cortado: "
              f"{failures - before} differences")

    headers = [
        {"__metadata__": {"k": "v", "a": "b"}, "a": {"dtype": "F32", "shape": [2, 1],
                                                     "data_offsets": [0, 8]},
         "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}},
        {"b": {"data_offsets": [8, 8], "shape": [0, 2], "dtype": "F16", "x": [1, {"y": None}]},
         "a": {"data_offsets": [0, 8], "dtype": "I64", "shape": []},
         "c": {"data_offsets": [8, 11], "dtype": "U8", "shape": [1, 3]}}]
    headers = [json.dumps(header, separators=(",", ":")).encode() for header in headers]
    counts = {"both read": 0, "both refuse": 0, "only cortado refuses, on purpose": 0}
    for _ in range(200000):
        raw = damaged(rng, rng.choice(headers), bytes(range(11)))
        ours, theirs = cortado.read(raw), reference_read(raw)
        if isinstance(ours, str) and isinstance(theirs, str):
            counts["both refuse"] += 1
        elif ours == theirs:
            counts["both read"] += 1
        elif isinstance(ours, str) and any(part in ours for part in STRICTER):
            counts["only cortado refuses, on purpose"] += 1
        else:
            failures += 1
            print(f"differ: {raw!r}\n  cortado: {ours}\n  safetensors: {theirs}")
            if failures > 10:
                break
    print("200000 damaged files:", counts)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
