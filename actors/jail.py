"""The walls around a job: a root of its own that shows only programs and libraries, no network, no other processes, no
system calls but those that computing needs.

Each layer stands for itself, and a job runs behind all that the host allows:

- *namespaces* (unprivileged user namespaces, Linux): a new user, mount, process, network and IPC namespace for each
  job. Its root holds the host's programs and libraries, read-only, its own files, and a small ``/tmp``; no home
  directory, no key, no other job. Its process is a child of the namespace's init: when that ends, everything in it
  ends.
- *filter* (seccomp, Linux on x86-64 and ARM64): no sockets, no new processes or programs, no signals to others, no
  tracing, no mounts, no memory or disk that the limits do not count, nothing in the job's directory but plain files, no
  kernel interfaces that computing has no use for.
- limits, which `actors.sandbox_child` sets: processor time, memory, size of files, open files.

The process from which jobs are forked runs in bubblewrap where that is installed (`bubblewrap`), with the same view.
References: namespaces(7), user_namespaces(7), mount_setattr(2), pivot_root(2), seccomp(2), capabilities(7).
"""

import contextlib
import ctypes
import glob
import os
import platform
import re
import resource
import shutil
import signal
import site
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NoReturn

import actors

TMP_BYTES: Final = 64 << 20
TMP_FILES: Final = 4_096
# The least that the kernel takes.
MOST_PROCESSES: Final = 301

_ROOT: Final = Path("/tmp")  # noqa: S108  a mount point that every Linux has; what is on it is not touched
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt/cuda", "/opt/nvidia", "/sys")
_CONFIGURATION: Final = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_PACKAGES: Final = ("schemas", "events", "projections", "bus", "actors")

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
_CLONE_NEWPID, _CLONE_NEWNET, _CLONE_THREAD = 0x20000000, 0x40000000, 0x00010000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4_096, 16_384, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_RDONLY, _NOSUID, _NODEV = 1, 2, 4
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38

# Of x86-64 and ARM64; what one has not is None. The numbers above 423 are the same everywhere.
_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_MAKES_PROCESSES: Final = ((57, None), (58, None), (59, 221), (322, 281))  # fork vfork execve execveat
_CLONE: Final = (56, 220)
_TGKILL: Final = (234, 131)
_PRLIMIT: Final = (302, 261)
_FCNTL: Final = (72, 25)
# Told that there is no such call: clone3, openat2, whose arguments cannot be seen here, and fallocate, which takes disk
# beyond the limit of a file. Whoever asks has another way, by clone, openat and writing.
_UNKNOWN: Final = ((435, 435), (437, 437))
_UNSUPPORTED: Final = ((285, 47),)
_OPENS: Final = (((2, None), 1), ((257, 56), 2))  # open openat, and which argument has the flags
_TMPFILE: Final = 0x00400000
_NEW_NAMESPACES: Final = 0x7E020000
_SET_OWNER: Final = (8, 15)  # F_SETOWN F_SETOWN_EX: who gets a signal when there is something to read
# What makes a directory more than a list of plain files: the parent counts and reads them.
_CHANGES_FOLDERS: Final = (
    (83, None),  # mkdir
    (258, 34),  # mkdirat
    (87, None),  # unlink
    (263, 35),  # unlinkat
    (84, None),  # rmdir
    (82, None),  # rename
    (264, 38),  # renameat
    (316, 276),  # renameat2
    (86, None),  # link
    (265, 37),  # linkat
    (88, None),  # symlink
    (266, 36),  # symlinkat
    (133, None),  # mknod
    (259, 33),  # mknodat
    (90, None),  # chmod
    (91, 52),  # fchmod
    (268, 53),  # fchmodat
    (452, 452),  # fchmodat2
    (188, 5),  # setxattr
    (189, 6),  # lsetxattr
    (190, 7),  # fsetxattr
    (463, 463),  # setxattrat
)
_FORBIDDEN: Final = (
    (41, 198),  # socket
    (53, 199),  # socketpair
    (319, 279),  # memfd_create
    (447, 447),  # memfd_secret
    (29, 194),  # shmget
    (64, 190),  # semget
    (68, 186),  # msgget
    (240, 180),  # mq_open
    (62, 129),  # kill
    (200, 130),  # tkill
    (129, 138),  # rt_sigqueueinfo
    (297, 240),  # rt_tgsigqueueinfo
    (101, 117),  # ptrace
    (310, 270),  # process_vm_readv
    (311, 271),  # process_vm_writev
    (272, 97),  # unshare
    (308, 268),  # setns
    (165, 40),  # mount
    (166, 39),  # umount2
    (155, 41),  # pivot_root
    (161, 51),  # chroot
    (304, 265),  # open_by_handle_at
    (321, 280),  # bpf
    (298, 241),  # perf_event_open
    (323, 282),  # userfaultfd
    (248, 217),  # add_key
    (249, 218),  # request_key
    (250, 219),  # keyctl
    (175, 105),  # init_module
    (313, 273),  # finit_module
    (176, 106),  # delete_module
    (246, 104),  # kexec_load
    (320, 294),  # kexec_file_load
    (169, 142),  # reboot
    (167, 224),  # swapon
    (168, 225),  # swapoff
    *((number, number) for number in (424, 425, 428, 429, 430, 431, 432, 433, 434, 438, 440, 442, 448, 467)),
)  # pidfd_send_signal io_uring_* open_tree move_mount fs* pidfd_open pidfd_getfd process_madvise mount_setattr
# process_mrelease open_tree_attr

_EPERM, _ENOSYS, _EOPNOTSUPP = 1, 38, 95


class NoJail(Exception):
    """The host does not allow a layer."""


def visible() -> list[str]:
    """What of the host's files a job can read: the system's programs and libraries, Python, and our packages."""
    ours = [str(Path(actors.__file__).parents[1] / name) for name in _PACKAGES]
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    if site.ENABLE_USER_SITE:
        python.append(site.getusersitepackages())
    named = dict.fromkeys((*_SYSTEM, *_CONFIGURATION, *python, *ours))
    there = [path for path in named if os.path.lexists(path)]
    # What lies below another entry is visible with it.
    return [path for path in there if not any(path.startswith(f"{other}/") for other in there)]


def shows(path: Path) -> bool:
    """Whether a job can read what lies there."""
    there = path.resolve()
    return any(there.is_relative_to(Path(each).resolve()) for each in visible())


def devices() -> list[str]:
    """The device nodes that a job can open: those that every program needs, and the GPUs'."""
    return [path for path in (*_DEVICES, *sorted(glob.glob("/dev/nvidia*"))) if Path(path).exists()]  # noqa: PTH207


def bubblewrap(writable: Path) -> list[str]:
    """The beginning of a command that runs the rest of it in bubblewrap; empty where that is not installed.

    ``writable`` is the one directory, beside a private ``/tmp``, that can be written.
    """
    program = shutil.which("bwrap")
    if program is None:
        return []
    words = [program, "--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108
    for path in visible():
        if Path(path).is_symlink():
            words += ["--symlink", str(Path(path).readlink()), path]
        else:
            words += ["--ro-bind", path, path]
    for path in devices():
        words += ["--dev-bind", path, path]
    return [*words, "--bind", str(writable), str(writable), "--"]


def run(
    work: Callable[[], NoReturn], directory: Path, readable: Iterable[str], ended: int, only: tuple[str, ...] = ()
) -> NoReturn:
    """Run ``work``, which ends its process, behind namespaces: for a process that has just been forked for one job.

    It can write below ``directory``, where ``only`` is given to the files of these names alone, which must be there,
    and read those of the files ``readable`` that there are. How it ended is written to the descriptor ``ended`` as
    ``os.waitpid`` gave it (4 bytes, little-endian). This process waits for it and ends. Raises `NoJail` when the host
    does not allow this.
    """
    _unshare()
    if _kernel() >= (5, 14):
        # Counted within the namespace since then. Root is not counted; for that there is the limit of ids below.
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = MOST_PROCESSES if hard == resource.RLIM_INFINITY else min(hard, MOST_PROCESSES)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    _die_with_parent()
    init = os.fork()
    if init != 0:
        _, status = os.waitpid(init, 0)
        os._exit(int(status != 0))
    _die_with_parent()
    _build_root(directory, readable, only)
    job = os.fork()
    if job == 0:
        os.close(ended)
        _drop_capabilities()
        work()
    while True:
        # Init inherits the job's orphans; it ends with the job, and the kernel ends what is left.
        pid, status = os.wait()
        if pid == job:
            os.write(ended, struct.pack("<i", status))
            os._exit(0)


def forbid(*, processes: bool) -> None:
    """Take up the filter of system calls, for good. ``processes``: new ones may be started (a compiler needs them).

    Raises `NoJail` where there is none for this kind of machine.
    """
    found = _ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or found is None:
        raise NoJail(f"no filter of system calls for {sys.platform} on {platform.machine()}")
    code, column = found
    program = _filter(code, column, processes=processes)
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    described = Program(len(program) // 8, ctypes.addressof(instructions))
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc().prctl(
        _PR_SET_SECCOMP, 2, ctypes.byref(described), 0, 0
    ):
        raise NoJail(f"the kernel takes no filter of system calls: {os.strerror(ctypes.get_errno())}")


def _filter(code: int, column: int, *, processes: bool) -> bytes:
    """The program for the kernel's packet filter: 8 bytes an instruction (seccomp(2))."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | _EPERM
    lines: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),
        (equal, 1, 0, code),
        (answer, 0, 0, refuse),
        (load, 0, 0, 0),
        # System calls of the x32 kind, which would pass by other numbers.
        (at_least, 0, 1, 0x40000000),
        (answer, 0, 0, refuse),
    ]

    def turn_away(numbers: Iterable[tuple[int, int | None]], error: int = _EPERM) -> None:
        for number in (pair[column] for pair in numbers):
            if number is not None:
                lines.extend([(equal, 0, 1, number), (answer, 0, 0, 0x00050000 | error)])

    def look(numbers: tuple[int, int | None], argument: int, test: int, value: int, *, wanted: bool) -> None:
        """Refuse the call unless the test of its argument's lower half comes out as wanted."""
        number = numbers[column]
        if number is not None:
            lines.extend([(equal, 0, 4, number), (load, 0, 0, 16 + 8 * argument)])
            lines.extend([(test, int(wanted), int(not wanted), value), (answer, 0, 0, refuse), (load, 0, 0, 0)])

    turn_away(_FORBIDDEN)
    turn_away(_UNKNOWN, _ENOSYS)
    turn_away(_UNSUPPORTED, _EOPNOTSUPP)
    for opens, flags in _OPENS:
        look(opens, flags, any_bit, _TMPFILE, wanted=False)
    for command in _SET_OWNER:
        look(_FCNTL, 1, equal, command, wanted=False)
    look(_PRLIMIT, 0, equal, 0, wanted=True)
    look(_CLONE, 0, any_bit, _NEW_NAMESPACES, wanted=False)
    if not processes:
        turn_away(_MAKES_PROCESSES)
        turn_away(_CHANGES_FOLDERS)
        # A thread is allowed, a process not; signals to oneself, as abort() sends them.
        look(_CLONE, 0, any_bit, _CLONE_THREAD, wanted=True)
        look(_TGKILL, 0, equal, os.getpid(), wanted=True)
    lines.append((answer, 0, 0, allow))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _unshare() -> None:
    """New namespaces for this process and, of processes, for its children. Raises `NoJail`."""
    uid, gid = os.getuid(), os.getgid()
    if sys.platform != "linux":
        raise NoJail(f"no namespaces on {sys.platform}")
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET):
        raise NoJail(f"the kernel gives no namespaces: {os.strerror(ctypes.get_errno())}")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _build_root(directory: Path, readable: Iterable[str], only: tuple[str, ...]) -> None:
    """A root with what the job may see, in place of the host's. See `run`."""
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)
    # Opened before the new root lies over some of them.
    wanted = (*visible(), *(path for path in readable if Path(path).exists()))
    sources = [(path, os.open(path, os.O_PATH)) for path in wanted if not Path(path).is_symlink()]
    nodes = [(path, os.open(path, os.O_PATH)) for path in devices()]
    links = [(path, str(Path(path).readlink())) for path in visible() if Path(path).is_symlink()]
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    files = [(str(directory / name), os.open(directory / name, os.O_PATH | os.O_NOFOLLOW)) for name in only]
    size = f"size={TMP_BYTES},nr_inodes={TMP_FILES},mode=755"
    _mount("tmpfs", _ROOT, "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    for folder in ("tmp", "proc", "dev"):
        (_ROOT / folder).mkdir()
    _mount("tmpfs", _ROOT / "tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    for path, source in sources:
        _restrict(_bind(path, source), _RDONLY | _NOSUID, recursive=True)
    for path, source in nodes:
        # What is behind a node can be written nevertheless.
        _restrict(_bind(path, source), _RDONLY | _NOSUID, recursive=True)
    for path, target in links:
        _below(path).symlink_to(target)
    _restrict(_bind(str(directory), place), _NOSUID | _NODEV | (_RDONLY if only else 0), recursive=False)
    for path, file in files:
        _mount(f"/proc/self/fd/{file}", _below(path), None, _MS_BIND)
    _mount_proc()
    _restrict(_ROOT, _RDONLY | _NOSUID, recursive=False)
    for _, descriptor in (*sources, *nodes, *files):
        os.close(descriptor)
    os.close(place)
    os.chdir(_ROOT)
    if _libc().pivot_root(b".", b".") or _libc().umount2(b".", _MNT_DETACH):
        raise NoJail(f"the new root cannot be entered: {os.strerror(ctypes.get_errno())}")
    os.chdir("/")


def _below(path: str) -> Path:
    """Where a path of the host lies in the new root, as long as that is not the root; its folder exists then."""
    target = _ROOT / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _bind(path: str, source: int) -> Path:
    target = _below(path)
    if Path(f"/proc/self/fd/{source}").is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.touch()
    _mount(f"/proc/self/fd/{source}", target, None, _MS_BIND | _MS_REC)
    return target


def _mount(source: str | None, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, str(target), kind)]
    if _libc().mount(*words, flags, None if options is None else options.encode()):
        raise NoJail(f"{target} cannot be mounted: {os.strerror(ctypes.get_errno())}")


def _mount_proc() -> None:
    """What the kernel says of processes, for reading: who runs as root could write the host's settings there."""
    proc = _ROOT / "proc"
    try:
        _mount("proc", proc, "proc", _MS_NOSUID | _MS_NODEV)
    except NoJail:
        # Inside of another container the kernel may refuse a new one; of the old one the job sees numbers.
        _mount("/proc", proc, None, _MS_BIND | _MS_REC)
    else:
        # Before Linux 6.14 this limit is the host's.
        if _kernel() >= (6, 14):
            with contextlib.suppress(OSError):
                (proc / "sys/kernel/pid_max").write_text(str(MOST_PROCESSES))
    _restrict(proc, _RDONLY | _NOSUID, recursive=True)


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (0, 0) if found is None else (int(found[1]), int(found[2]))


def _restrict(target: Path, attributes: int, *, recursive: bool) -> None:
    """Takes rights away from what is mounted there: to write, to gain others by a program's owner, to open devices."""
    given = ctypes.create_string_buffer(struct.pack("<QQQQ", attributes, 0, 0, 0), 32)
    flags = _AT_RECURSIVE if recursive else 0
    if _libc().syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, str(target).encode(), flags, given, 32):
        raise NoJail(f"{target} cannot be made read-only: {os.strerror(ctypes.get_errno())}")


def _drop_capabilities() -> None:
    """What the namespace's creator may do there, the job may not, and no program gives it back, not even to root."""
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise NoJail(f"programs cannot be kept from privileges: {os.strerror(ctypes.get_errno())}")
    header, nothing = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    if _libc().capset(header, nothing):
        raise NoJail(f"the capabilities cannot be dropped: {os.strerror(ctypes.get_errno())}")


def _die_with_parent() -> None:
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
