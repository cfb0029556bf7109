"""Programs that models write: right and wrong ones are told apart, and none reaches out of its box."""

import json
import logging
import os
import socket
import sys
import time
from pathlib import Path
from threading import Barrier

import pytest
from pydantic import ValidationError

from danlu.core.errors import RewardError, SetupError
from danlu.rewards import _box, _jail, _tests, rewards
from danlu.rewards._box import Limits, run
from danlu.rewards._tests import block_of
from tests.rewards.conftest import answer, boxed

ASSERTS = (
    "import math\nwanted = 3\nassert add(1, 2) == wanted\nassert add(0, 0) == 0\nassert add('a', 'b') == '''a\nb'''\n"
)
CASES = json.dumps([{"input": "1 2\n", "output": "3"}, {"input": "4 5\n", "output": "9\n"}])
SMALL = Limits(seconds=5.0, memory_mb=256, written_mb=1, processes=4)


pytestmark = boxed


def code(text: str) -> str:
    return f"Here it is:\n```python\n{text}\n```\nDone."


def of(court, *answers, **settings) -> list[float]:
    reward = rewards["code"].model_validate(settings, context={"allow_code": True})
    return reward.open(court)(answers)


def box(text: str, limits: Limits = SMALL, **given) -> _box.Ran:
    return run({"main.py": text}, ["{folder}/main.py"], limits, **given)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (code("def add(a, b): return a + b"), 2 / 3),
        (code("def add(a, b): return f'{a}\\n{b}' if a == 'a' else a + b"), 1.0),
        (code("def add(a, b): return 7"), 0.0),
        (code("def add(a, b):\n    while b: pass\n    return 0"), 0.0),
        (code("def add(a, b): return a +"), 0.0),
        (code("import sys\nsys.exit(0)"), 0.0),
        (code("print('{told} {folder}')\ndef add(a, b): raise SystemExit"), 0.0),
        (code("if __name__ == '__main__': input()\ndef add(a, b): return 3"), 1 / 3),
        ("def add(a, b): return a + b", 0.0),
        ("", 0.0),
    ],
)
def test_the_share_of_asserts_that_hold(court, text, reward):
    assert of(court, answer(text, ASSERTS), timeout_seconds=1) == [pytest.approx(reward)]


def test_all_or_nothing_and_a_pattern_and_order(court):
    good, half = "def add(a, b): return '%s\\n%s' % (a, b) if a == 'a' else a + b", "def add(a, b): return a + b"
    some = [answer(f"<code>{one}</code>", ASSERTS) for one in (good, half, half, good)]
    assert of(court, *some, take="(?s)<code>(.*)</code>", all_or_nothing=True) == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("print(sum(map(int, input().split())))", 1.0),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())), ' ')\nprint()", 1.0),
        ("print(3)", 0.5),
        ("print(sum(map(int, input().split())))\nraise SystemExit(1)", 0.0),
    ],
)
def test_the_share_of_inputs_whose_output_is_right(court, text, reward):
    assert of(court, answer(code(text), CASES)) == [reward]


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (None, "the row rows.jsonl:7 has no tests"),
        ("42 is the answer", "of the row rows.jsonl:7 is no Python"),
        ("import math", "tests nothing; expected Python whose asserts"),
        ("[]", "holds no tests; expected Python whose asserts"),
        ('[{"input": "1"}]', "holds no tests"),
    ],
)
def test_a_row_without_tests_is_named(court, expected, words):
    with pytest.raises(RewardError, match=words):
        of(court, answer(code("1"), expected))


def test_programs_run_only_where_the_recipe_allows_code():
    with pytest.raises(ValidationError, match="only when the recipe says `allow_code: true`"):
        rewards["code"]()


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("a\n```python\nx\n```\nb\n~~~\ny\n\n~~~", "y\n"),
        ("```\nx\n```", "x"),
        ("~~~\n```\n~~~", "```"),
        ("````\n```\nx\n```\n````", "```\nx\n```"),
        ("```python\nx", None),
        ("x", None),
    ],
)
def test_the_last_whole_block_is_the_code(text, block):
    assert block_of(text) == block


def test_an_endless_loop_and_a_sleeper_are_stopped():
    for text in ("while True: pass", "import time; time.sleep(60)"):
        started = time.monotonic()
        assert box(text, Limits(0.3, 256, 1, 4)).code is None
        assert time.monotonic() - started < 5


def left(ran: _box.Ran) -> list[str]:
    """Processes that still run the program which printed its folder's name first."""
    name = ran.printed.decode().split()[0]
    lines = [read(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in lines if Path(name).parent.name in line]


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_fork_bomb_has_few_processes_and_leaves_none():
    bomb = "import os, sys, time\nprint(os.getcwd(), flush=True)\nwhile True:\n    try:\n        "
    bomb += "if os.fork(): os.write(int(sys.argv[1]), b'.')\n    except OSError: time.sleep(0.01)"
    ran = run({"main.py": bomb}, ["{folder}/main.py", "{told}"], Limits(0.6, 256, 1, 4))
    assert ran.code is None
    assert 1 <= len(ran.told) <= 4
    assert left(ran) == []


def test_what_leaves_its_process_group_ends_too():
    ran = box(
        "import os, time\nprint(os.getcwd(), flush=True)\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)"
    )
    assert ran.code == 0
    assert left(ran) == []


def test_a_memory_bomb_fails_alone():
    assert b"MemoryError" in box("x = bytearray(10**9)").problem.encode()


def test_no_more_is_written_than_allowed():
    assert len(box("print('x' * 10**8)").printed) <= 2**20
    assert box("for n in range(9): open(str(n), 'wb').write(bytes(300_000))").code == 1


@pytest.mark.parametrize("path", [os.path.expanduser("~"), "/tmp", str(Path(__file__).parent), "/usr", "/dev/shm"])
def test_nothing_outside_is_written(path):
    ran = box(f"open({path + '/written_by_a_program'!r}, 'w')")
    assert ran.code == 1
    assert not Path(path, "written_by_a_program").exists()


def test_its_own_folder_is_there_and_goes_again():
    ran = box("import os\nopen('a', 'w').write('b')\nprint(open('a').read(), os.getcwd())")
    text, folder = ran.printed.decode().split()
    assert text == "b"
    assert not Path(folder).exists()


def test_a_python_behind_a_link_is_found(monkeypatch, tmp_path):
    (tmp_path / "link").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "link"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "link" / "bin" / Path(sys.executable).name))
    assert box("import pydantic; print(pydantic.__name__)").printed == b"pydantic\n"


@pytest.mark.parametrize("path", ["/etc/passwd", __file__, "/proc/self/environ", "/proc/1/environ"])
def test_nothing_outside_is_read(path):
    assert box(f"print(open({path!r}).read())").code == 1


def test_nothing_of_the_environment_is_known(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "k")
    names = box("import os; print(sorted(os.environ))").printed.decode()
    assert "SECRET" not in names
    assert json.loads(names.replace("'", '"')) in ([], ["LC_CTYPE"])


def test_it_is_nobody_in_particular():
    user, parent = box("import os; print(os.getuid(), os.getppid())").printed.split()
    assert int(user) not in {0, os.getuid()}
    assert int(parent) == 1


def test_the_network_is_out_of_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran = box(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)")
        assert ran.code == 1
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.accept()
    assert (
        box("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))").code == 1
    )


@pytest.mark.parametrize("door", ["unshare", "mount"])
def test_a_kernel_without_doors_is_refused_or_told(court, monkeypatch, tmp_path, caplog, door):
    jail = Path(_jail.__file__).read_text().replace(f'call("{door}"', 'call("no_such_call"')
    (tmp_path / "jail.py").write_text(jail)
    monkeypatch.setattr(_jail, "__file__", str(tmp_path / "jail.py"))
    forks = (
        "import os\nfor _ in range(3):\n    if os.fork() == 0: os._exit(0)\n    os.wait()\ndef add(a, b): return a + b"
    )
    one = answer(code(forks), "assert add(1, 1) == 2")
    with pytest.raises(
        SetupError, match="cannot keep programs from its files and network: namespaces .*isolation: best"
    ):
        of(court, one)
    monkeypatch.setattr(_box, "other_user", lambda: None)  # Python may lie where nobody else reads
    with caplog.at_level(logging.WARNING):
        assert of(court, one, isolation="best") == [1.0]
    assert "are not kept from this machine's files and network: namespaces" in caplog.text


def test_several_run_together(court, monkeypatch):
    meeting = Barrier(3)

    def ran(*given, **settings) -> _box.Ran:
        meeting.wait(10)  # nobody comes further before three have come here
        return _box.Ran(0, b"3\n", b"", "")

    monkeypatch.setattr(_tests, "run", ran)
    some = [answer(code("print(3)"), '[{"input": "", "output": "3"}]')] * 3
    assert of(court, *some, at_once=3) == [1.0] * 3
