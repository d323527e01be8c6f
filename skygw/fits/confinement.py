"""Takes from a process what it does not need before it reads what strangers wrote: memory, time, files, the network.

Limits of the kernel (setrlimit(2)) everywhere; on Linux also a list of the system calls that are left (seccomp(2), a
classic BPF program over `struct seccomp_data`). Everything else is answered with EPERM: no socket, no file by name, no
other process.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
LOAD_WORD = 0x20
JUMP_IF_EQUAL = 0x15
RETURN = 0x06
OFFSET_OF_NUMBER, OFFSET_OF_ARCH = 0, 4

# Of what is left: memory, clocks, waiting, reading what is open already, answering on the socket, ending.
ARCHITECTURES = {
    # machine: (AUDIT_ARCH, numbers)
    "x86_64": (
        0xC000003E,
        {
            "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10,
            "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
            "pread64": 17, "sched_yield": 24, "mremap": 25, "madvise": 28, "getpid": 39, "sendto": 44, "recvfrom": 45,
            "sendmsg": 46, "recvmsg": 47, "exit": 60, "gettimeofday": 96, "sigaltstack": 131,
            "gettid": 186, "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228,
            "clock_nanosleep": 230, "exit_group": 231, "ppoll": 271, "getrandom": 318,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "mmap": 222, "mprotect": 226,
            "munmap": 215, "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
            "pread64": 67, "sched_yield": 124, "mremap": 216, "madvise": 233, "getpid": 172, "sendto": 206,
            "recvfrom": 207, "sendmsg": 211, "recvmsg": 212, "exit": 93, "gettimeofday": 169,
            "sigaltstack": 132, "gettid": 178, "futex": 98, "sched_getaffinity": 123, "restart_syscall": 128,
            "clock_gettime": 113, "clock_nanosleep": 115, "exit_group": 94, "ppoll": 73, "getrandom": 278,
        },
    ),
}  # fmt: skip


def limit(*, memory_bytes: int, cpu_s: int) -> None:
    """For good: address space, processor time of this process in all, no core, nothing written. For the beginning."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(what, (most, most))


def shut_in() -> str | None:
    """From now on only what `ARCHITECTURES` lists; for when everything is loaded. Why not, where this cannot be had."""
    known = ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or known is None or sys.maxsize < 2**32:
        return f"there is no list of system calls for {sys.platform} on {platform.machine()}"
    program = ctypes.create_string_buffer(_program(*known))
    length = len(program.raw) // 8
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", length, ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_void_p(ctypes.addressof(header)), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            return f"the kernel does not let it: {os.strerror(ctypes.get_errno())}"
    return None


def _program(arch: int, numbers: dict[str, int]) -> bytes:
    """Load the architecture, refuse another one; load the number, allow those listed, refuse the rest."""
    listed = sorted(numbers.values())
    refuse = _step(RETURN, 0, 0, RET_ERRNO | errno.EPERM)
    steps = [
        _step(LOAD_WORD, 0, 0, OFFSET_OF_ARCH),
        _step(JUMP_IF_EQUAL, 1, 0, arch),
        refuse,
        _step(LOAD_WORD, 0, 0, OFFSET_OF_NUMBER),
        # Over those that are left to compare with, and over the refusal.
        *(_step(JUMP_IF_EQUAL, len(listed) - nth, 0, number) for nth, number in enumerate(listed)),
        refuse,
        _step(RETURN, 0, 0, RET_ALLOW),
    ]
    return b"".join(steps)


def _step(code: int, if_true: int, if_false: int, value: int) -> bytes:
    """`struct sock_filter`."""
    return struct.pack("HBBI", code, if_true, if_false, value)
