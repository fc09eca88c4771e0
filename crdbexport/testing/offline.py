"""Taking the network from a process, and from every library in it: the kernel refuses it sockets of the internet."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from functools import cache

# prctl(2), seccomp(2) and the instructions of its filters.
_NO_NEW_PRIVILEGES, _GET_SECCOMP, _SET_SECCOMP, _FILTER = 38, 21, 22, 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FAMILY_AT = 0, 4, 16
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
# How the kernel names a machine, and the number that the call `socket` has there.
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def can_go_offline() -> bool:
    """Whether `go_offline` works on this machine."""
    return sys.platform == "linux" and platform.machine() in _MACHINES and _libc().prctl(_GET_SECCOMP, 0, 0, 0, 0) >= 0


def go_offline() -> None:
    """Let this thread, and all that it starts, open no socket of the internet, loopback included; it holds for good.

    Sockets of this machine (AF_UNIX) and connections that are open stay. Raises OSError where the kernel refuses.
    """
    code = _filter()
    instructions = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(instructions))
    _done(_libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _done(_libc().prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0))


def _filter() -> bytes:
    """`socket` with a family of the internet fails, as it does without a route; whatever else is asked passes."""
    architecture, socket_call = _MACHINES[platform.machine()]
    return b"".join(
        (
            _instruction(_LOAD, _ARCHITECTURE_AT),
            _instruction(_IF_EQUAL, architecture, otherwise=5),
            _instruction(_LOAD, _NUMBER_AT),
            _instruction(_IF_EQUAL, socket_call, otherwise=3),
            _instruction(_LOAD, _FAMILY_AT),
            _instruction(_IF_EQUAL, socket.AF_INET, then=2),
            _instruction(_IF_EQUAL, socket.AF_INET6, then=1),
            _instruction(_RETURN, _ALLOW),
            _instruction(_RETURN, _FAIL | errno.ENETUNREACH),
        )
    )


def _instruction(code: int, operand: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; `then` and `otherwise` say how many to pass over."""
    return struct.pack("=HBBI", code, then, otherwise, operand)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _done(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
