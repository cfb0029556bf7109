"""What a program finds itself in: a process of its own, which shuts the doors behind it and becomes the program.

It is a file of the standard library alone, as it starts for every program. `python -I -S _jail.py '{"command": …}'`
"""

import ctypes
import json
import os
import resource
import struct
import sys
from pathlib import Path
from typing import Any

REFUSED = 97
"""exit code where the kernel cannot shut a door that has to be shut"""
INSIDE = 1000
"""the user that a program believes to be: not root, so that it loses the rights over its own namespaces"""
USERS, OTHERS = 0x10000000, 0x00020000 | 0x08000000 | 0x20000000 | 0x40000000
"""namespaces: of users; of mounts, shared memory, processes and network"""
BIND, PRIVATE, NO_SETUID, NO_DEVICES = 4096 | 16384, (1 << 18) | 16384, 2, 4
DEATH_SIGNAL, DUMPABLE, NO_NEW_RIGHTS = 1, 4, 38
CREATE, ADD, RESTRICT = 444, 445, 446
"""Landlock's system calls: https://docs.kernel.org/userspace-api/landlock.html"""
READ, READ_FOLDER, WRITE_FILE = 1 | 1 << 2, 1 << 3, 1 << 1
EVERY = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""what each version of Landlock knows of files; later ones add device controls"""
SYSTEM = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom"]
"""what Python reads beside its own folders"""


def call(name: str, *given: Any) -> int:
    """A function of the C library, an `OSError` where it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = getattr(libc, name)(*given)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(found)


def stand_apart(*, root: bool) -> None:
    """Own processes, network, shared memory, mounts; who is not root needs a namespace of users to make them."""
    call("unshare", OTHERS if root else USERS | OTHERS)


def be_somebody(user: int, group: int) -> None:
    """The only user of an own namespace, in which no further ones can be made."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{INSIDE} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{INSIDE} {group} 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def own_root(root: str, reads: list[str], work: str, space: int, user: int | None) -> None:
    """A root folder in memory that holds what may be read, and a folder to work in; nothing else has a name there."""
    call("mount", None, b"/", None, PRIVATE, None)
    sizes = f"size={space},nr_inodes=4096,mode=755".encode()
    call("mount", b"none", root.encode(), b"tmpfs", NO_SETUID | NO_DEVICES, sizes)
    for path in reads:
        here = Path(root + path)
        here.parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_symlink():
            here.symlink_to(os.readlink(path))
            continue
        if Path(path).is_dir():
            here.mkdir(exist_ok=True)
        else:
            here.touch()
        call("mount", path.encode(), str(here).encode(), None, BIND, None)
    Path(root + work).mkdir(parents=True, exist_ok=True)
    if user is not None:
        os.chown(root + work, user, user)
    os.chroot(root)
    os.chdir(work)


def lock(reads: list[str], work: str) -> None:
    """Landlock: of files reading here and writing there is left, of TCP and foreign processes nothing."""
    version = call("syscall", CREATE, None, ctypes.c_size_t(0), 1)
    every = EVERY.get(version, (1 << 16) - 1)
    rules = struct.pack("=QQQ", every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    rules = rules[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = call("syscall", CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    for path in [*reads, work]:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = (READ | READ_FOLDER) if os.path.isdir(path) else READ
        allowed |= WRITE_FILE if path == "/dev/null" else 0
        rule = struct.pack("=Qi", every if path == work else allowed, opened)
        call("syscall", ADD, ruleset, 1, rule, 0)
        os.close(opened)
    call("syscall", RESTRICT, ruleset, 0)
    os.close(ruleset)


def become(user: int | None) -> None:
    """Another user, where root began this."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def shut(plan: dict[str, Any]) -> tuple[bool, list[str]]:
    """Shut every door that there is: whether processes are its own now, and what the kernel does not have."""
    user, mine, missing = plan["user"], (os.getuid(), os.getgid()), []
    apart = False
    os.chdir(plan["work"])
    try:
        stand_apart(root=user is not None)
        apart = True
        if user is None:
            be_somebody(*mine)
        own_root(plan["root"], plan["reads"], plan["work"], plan["space"], user)
    except (OSError, AttributeError) as error:
        missing.append(f"namespaces ({error})")
    become(user)
    try:
        call("prctl", NO_NEW_RIGHTS, 1, 0, 0, 0)
        lock(plan["reads"], plan["work"])
    except (OSError, AttributeError) as error:
        missing.append(f"Landlock ({error})")
    return apart, missing


def limit(limits: dict[str, int]) -> None:
    """What one process may take; a process that asks for more is refused or killed."""
    for name, most in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(number, (most, most + 1 if name == "CPU" else most))


def guard(child: int) -> None:
    """Wait for a child and end as it did. Of a namespace's processes none outlives the first one."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def main() -> None:
    """Become the program."""
    plan = json.loads(sys.argv[1])
    apart, missing = shut(plan)
    if missing and plan["required"]:
        print("; ".join(missing), file=sys.stderr)
        sys.exit(REFUSED)
    for _ in range(2 if apart else 0):  # the first child is the namespace's first process, and not the program's to end
        child = os.fork()
        if child:
            call("prctl", DUMPABLE, 0, 0, 0, 0)
            call("prctl", DEATH_SIGNAL, 9, 0, 0, 0)
            guard(child)
    limit(plan["limits"])
    os.execve(plan["command"][0], plan["command"], {})


if __name__ == "__main__":
    main()
