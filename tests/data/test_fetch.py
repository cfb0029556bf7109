"""Public sets are fetched whole or not at all: whatever breaks on the way, nothing half-written is ever trusted."""

import errno
import gzip
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from danlu.core.errors import DataError, SetupError, UserError
from danlu.data.catalogue import Entry, Remote
from danlu.data.fetch import ask, download, sets
from danlu.data.fetch.ask import client
from danlu.data.fetch.download import Download
from danlu.data.fetch.results import make
from danlu.data.registry import every_known
from danlu.data.sources import Source
from danlu.runs.fetch import fetch
from tests.data.hub_stand_in import REVISION, serving

CONTENT = bytes(range(256)) * 4000
SECRET = "hf_not_for_others"


@pytest.fixture
def hub():
    with serving() as stand_in:
        yield stand_in


@pytest.fixture
def other():
    with serving() as stand_in:
        yield stand_in


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, hub):
    """An empty folder, the stand-in for the hub, and nobody logged in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for module in (ask, sets):
        monkeypatch.setattr(module, "get_token", lambda: None)


@pytest.fixture
def logged_in(monkeypatch):
    for module in (ask, sets):
        monkeypatch.setattr(module, "get_token", lambda: SECRET)


@pytest.fixture
def get(tmp_path):
    """`get(url)`: download a file; `get.waited` are the seconds between tries."""

    def run(url: str, **hashes):
        with client() as asking:
            remote = Remote(url=url, **hashes)
            return Download(asking, remote, url, tmp_path / "got/file.bin", sleep=run.waited.append).run()

    run.waited = []
    run.file = tmp_path / "got/file.bin"
    run.part = tmp_path / "got/.file.bin.part"
    return run


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def ranges(stand_in) -> list[str | None]:
    return [headers.get("Range") for _, _, headers in stand_in.asked]


def test_a_file_comes_whole(hub, get):
    hub.files["/a"] = CONTENT
    got = get(f"{hub.url}/a", sha1=hashlib.sha1(CONTENT).hexdigest(), sha256=hashlib.sha256(CONTENT).hexdigest())
    assert get.file.read_bytes() == CONTENT
    assert (got.bytes, got.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert left(get.file.parent) == ["file.bin"]


def test_a_cut_connection_goes_on_where_it_was(hub, get):
    hub.files["/a"] = CONTENT
    hub.cuts["/a"] = [300_000, 200_000]
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=300000-", "bytes=500000-"]
    assert get.waited == [1, 1]


def test_a_later_try_goes_on_too(hub, get, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    hub.files["/a"] = CONTENT
    hub.cuts["/a"] = [300_000]
    with pytest.raises(SetupError, match="300,000 bytes are kept, and the next try goes on from there"):
        get(f"{hub.url}/a")
    assert left(get.file.parent) == [".file.bin.part", ".file.bin.part.json"]
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=300000-"]


def test_a_file_that_changed_in_between_begins_anew(hub, get):
    hub.files["/a"] = CONTENT
    hub.cuts["/a"] = [300_000]
    new = CONTENT[::-1]
    get.waited = type("Change", (list,), {"append": lambda self, _: hub.files.update({"/a": new})})()
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == new


def test_a_server_without_ranges_begins_anew(hub, get):
    hub.ranges = False
    hub.files["/a"] = CONTENT
    hub.cuts["/a"] = [300_000]
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == CONTENT


def test_a_file_without_a_strong_tag_begins_anew(hub, get):
    hub.files["/a"] = CONTENT
    hub.headers["/a"] = {"ETag": 'W/"weak"'}
    hub.cuts["/a"] = [300_000]
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == CONTENT
    assert ranges(hub) == [None, None]


def test_a_part_of_another_file_is_not_used(hub, get):
    hub.files["/a"] = CONTENT
    get.part.parent.mkdir()
    get.part.write_bytes(b"of nobody knows what")
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == CONTENT
    assert ranges(hub) == [None]


def test_a_part_that_is_whole_only_lacks_its_name(hub, get):
    hub.files["/a"] = CONTENT
    get.part.parent.mkdir()
    get.part.write_bytes(CONTENT)
    tag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    get.part.with_name(".file.bin.part.json").write_text(json.dumps({"url": f"{hub.url}/a", "tag": tag}))
    assert get(f"{hub.url}/a").sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert left(get.file.parent) == ["file.bin"]


def test_a_part_that_is_too_long_is_dropped(hub, get):
    hub.files["/a"] = CONTENT
    get.part.parent.mkdir()
    get.part.write_bytes(CONTENT + b"more")
    tag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    get.part.with_name(".file.bin.part.json").write_text(json.dumps({"url": f"{hub.url}/a", "tag": tag}))
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_a_wrong_hash_leaves_nothing(kind, hub, get):
    hub.files["/a"] = CONTENT
    with pytest.raises(DataError, match=r"its SHA-\d+ is \w+, expected 0+; nothing of it is kept"):
        get(f"{hub.url}/a", **{kind: "0" * 40})
    assert left(get.file.parent) == []


def test_a_hash_that_the_hub_tells_is_checked(hub, other, get):
    other.files["/cdn"] = CONTENT
    hub.redirects["/a"] = f"{other.url}/cdn"
    hub.headers["/a"] = {"X-Linked-Etag": f'"{hashlib.sha256(CONTENT).hexdigest()}"'}
    get(f"{hub.url}/a")
    other.files["/cdn"] = CONTENT[::-1]
    with pytest.raises(DataError, match="its SHA-256 is"):
        get(f"{hub.url}/a")


def test_busy_servers_are_asked_again_and_in_time(hub, get):
    hub.files["/a"] = CONTENT
    hub.statuses["/a"] = [503, 429, 502, 200]
    get(f"{hub.url}/a")
    assert get.waited == [1, 0, 4]
    hub.statuses["/a"] = [503]
    with pytest.raises(SetupError, match=r"busy or failing \(503\)"):
        get(f"{hub.url}/a")
    assert len(get.waited) == 3 + download.TRIES - 1


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, SetupError, r"asks for an account \(401\).*set HF_TOKEN"),
        (403, SetupError, r"asks for an account \(403\)"),
        (404, DataError, r"not there \(404\)"),
        (410, DataError, r"not there \(410\)"),
        (451, UserError, r"refused \(451\)"),
    ],
)
def test_a_refusal_is_said_once(status, kind, words, hub, get):
    hub.statuses["/a"] = [status]
    with pytest.raises(kind, match=words):
        get(f"{hub.url}/a")
    assert len(hub.asked) == 1
    assert left(get.file.parent) == []


def test_without_a_network_it_is_said_at_once(get, hub):
    before = time.monotonic()
    with pytest.raises(SetupError, match=r"cannot be reached .* put it at .*file\.bin"):
        get("http://127.0.0.1:9/a")
    with pytest.raises(SetupError, match="cannot be reached"):
        get("http://no-such-host.invalid/a")
    assert time.monotonic() - before < 5
    assert get.waited == []


def tokens(stand_in) -> list[str | None]:
    return [headers.get("Authorization") for _, _, headers in stand_in.asked]


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, other, get, logged_in):
    other.files["/cdn"] = CONTENT
    other.redirects["/back"] = f"{hub.url}/b"
    hub.files["/b"] = CONTENT
    hub.redirects |= {"/a": "/a2", "/a2": f"{other.url}/cdn", "/c": f"{other.url}/back"}
    get(f"{hub.url}/a")
    get(f"{hub.url}/c")
    get(f"{other.url}/back")
    assert tokens(other) == [None] * 3
    by_path = {path: headers.get("Authorization") for _, path, headers in hub.asked}
    assert by_path == {"/a": f"Bearer {SECRET}", "/a2": f"Bearer {SECRET}", "/c": f"Bearer {SECRET}", "/b": None}


def test_no_password_of_netrc_is_sent(hub, get, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    hub.files["/a"] = CONTENT
    get(f"{hub.url}/a")
    assert tokens(hub) == [None]


def test_the_token_is_in_no_message(hub, get, logged_in, caplog):
    caplog.set_level(logging.DEBUG)
    hub.statuses["/a"] = [503, 403]
    with pytest.raises(SetupError, match="the token of your account does not open it") as caught:
        get(f"{hub.url}/a")
    assert SECRET not in str(caught.value) + caplog.text
    assert tokens(hub) == [f"Bearer {SECRET}"] * 2


def test_redirects_end_and_stay_on_the_web(hub, get):
    hub.redirects |= {"/a": "/b", "/b": "/a", "/c": "file:///etc/passwd"}
    with pytest.raises(UserError, match="sent on 10 times"):
        get(f"{hub.url}/a")
    with pytest.raises(UserError, match="leads to file:"):
        get(f"{hub.url}/c")
    with pytest.raises(UserError, match="without encryption"):
        ask.check_scheme("http://example.org/a", "https://example.org/a")


def test_a_packed_answer_is_not_taken_for_the_file(hub, get):
    hub.files["/a"] = gzip.compress(CONTENT)
    hub.headers["/a"] = {"Content-Encoding": "gzip"}
    with pytest.raises(UserError, match="sent as gzip, which was not asked for"):
        get(f"{hub.url}/a")


def test_a_full_disk_keeps_what_came(hub, get, monkeypatch):
    hub.files["/a"] = CONTENT
    write, room = os.write, [500_000]

    def limited(file, block):
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(file, bytes(block[: room[0]]))
        room[0] -= done
        return done

    monkeypatch.setattr(download.os, "write", limited)
    with pytest.raises(SetupError, match=r"the disk is full; make room, and the next try goes on \(500,000 bytes\)"):
        get(f"{hub.url}/a")
    monkeypatch.undo()
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=500000-"]


def test_a_file_that_will_not_fit_is_not_begun(hub, get, monkeypatch):
    hub.files["/a"] = CONTENT
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and type("U", (), {"free": 9})
    )
    with pytest.raises(SetupError, match="1,024,000 bytes are to come and 9 are free"):
        get(f"{hub.url}/a")
    assert left(get.file.parent) == []


KILLED = """
import sys, time
from pathlib import Path
from danlu.data.catalogue import Remote
from danlu.data.fetch.ask import client
from danlu.data.fetch.download import Download

def slowly(here, total):
    if here > 200_000:
        print(here, flush=True)
        time.sleep(60)

url, to = sys.argv[1:]
with client() as asking:
    Download(asking, Remote(url=url), url, Path(to), slowly).run()
"""


def test_a_killed_download_is_not_trusted_and_goes_on(hub, get):
    hub.files["/a"] = CONTENT
    words = [sys.executable, "-c", KILLED, f"{hub.url}/a", str(get.file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        here = int(process.stdout.readline())
        process.kill()
    assert left(get.file.parent) == [".file.bin.part", ".file.bin.part.json"]
    assert get.part.stat().st_size == here
    get(f"{hub.url}/a")
    assert get.file.read_bytes() == CONTENT
    assert ranges(hub) == [None, f"bytes={here}-"]


ROWS = [{"instruction": "q", "input": "", "output": "a"}, {"instruction": "问", "input": "", "output": "答\u2028案"}]


def lines(rows: list) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.fixture
def told():
    """`told(names)`: fetch them into data/, and what was said."""

    def run(*names: str) -> str:
        console = Console(file=io.StringIO(), width=300)
        fetch(names, Path("data"), console=console)
        return console.file.getvalue()

    return run


def test_a_set_is_fetched_once_and_found_by_its_name(hub, told):
    hub.put("databricks/databricks-dolly-15k", "databricks-dolly-15k.jsonl", lines(ROWS))
    said = told("dolly")
    assert "licence: CC BY-SA 3.0" in said
    assert "data/dolly.jsonl: 1 files downloaded" in said
    assert Path("data/dolly.jsonl").read_bytes() == lines(ROWS)
    assert Path("data/raw_train/dolly/databricks-dolly-15k.jsonl").read_bytes() == lines(ROWS)
    asked = len(hub.asked)
    assert "here already, nothing downloaded" in told("dolly")
    assert len(hub.asked) == asked
    assert [row for _, row in Source(path="dolly").rows()] == ROWS
    assert next(one for one in every_known() if one.name == "dolly").state == "here"


def test_a_gated_set_without_a_token_says_its_name_and_asks_nobody(hub, told):
    with pytest.raises(SetupError, match=r"^lima: .*do so at .*GAIR/lima, then set HF_TOKEN"):
        told("lima")
    assert hub.asked == []


def test_a_gated_set_comes_with_a_token(hub, told, logged_in):
    hub.put("GAIR/lima", "train.jsonl", lines(ROWS))
    told("lima")
    assert Path("data/lima.jsonl").read_bytes() == lines(ROWS)
    assert tokens(hub) == [f"Bearer {SECRET}"]


def chat(*values) -> dict:
    return {"id": "x", "conversations": [{"from": "human", "value": value} for value in values]}


def test_shared_chats_are_merged_cut_and_cleaned(hub, told):
    parts = [[chat("a" * 3000, None, "b\u2028c\u2029d")], [chat(None, 3), chat("e")]]
    for number, part in enumerate(parts, 1):
        name = f"HTML_cleaned_raw_dataset/sg_90k_part{number}_html_cleaned.json"
        hub.put("anon8231489123/ShareGPT_Vicuna_unfiltered", name, json.dumps(part).encode())
    told("sharegpt")
    assert json.loads(Path("data/sharegpt.json").read_bytes()) == [chat("a" * 2048, "bcd"), chat("e")]
    assert left(Path("data/raw_train/sharegpt")) == [
        ".fetched.json", "sg_90k_part1_html_cleaned.json", "sg_90k_part2_html_cleaned.json",
    ]  # fmt: skip


def test_belle_loses_its_line_separators_and_no_row(hub, told):
    hub.put("BelleGroup/train_0.5M_CN", "Belle_open_source_0.5M.json", lines(ROWS))
    told("belle")
    assert json.loads(Path("data/belle.json").read_bytes()) == [ROWS[0], ROWS[1] | {"output": "答案"}]


def test_packed_trees_are_unpacked(hub, told):
    hub.put("OpenAssistant/oasst1", "2023-04-12_oasst_ready.trees.jsonl.gz", gzip.compress(lines(ROWS)))
    told("openassistant")
    assert Path("data/openassistant.jsonl").read_bytes() == lines(ROWS)


def test_sub_mixes_of_the_hub_are_merged_in_order(hub, told):
    for number, mix in enumerate(("flan2021", "t0", "niv2", "cot", "dialog")):
        rows = [{"inputs": mix, "targets": str(number)}]
        hub.put(f"DataProvenanceInitiative/{mix}_submix_original", "data/train-00000-of-00001.jsonl", lines(rows))
        hub.put(f"DataProvenanceInitiative/{mix}_submix_original", "README.md", b"words")
    told("flanv2")
    made = [json.loads(line) for line in Path("data/flanv2.jsonl").read_text().splitlines()]
    assert [row["targets"] for row in made] == list("01234")


def test_files_of_one_name_are_kept_apart(hub, told):
    kinds = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
    for kind in kinds:
        hub.put("Anthropic/hh-rlhf", f"{kind}/train.jsonl.gz", gzip.compress(lines([{"chosen": kind, "rejected": ""}])))
    told("hh_rlhf_en")
    made = [json.loads(line)["chosen"] for line in Path("data/hh_rlhf_en.jsonl").read_text().splitlines()]
    assert made == list(kinds)


def test_a_large_set_stays_as_it_is_and_is_read_there(hub, told):
    hub.put("BelleGroup/train_2M_CN", "train_2M_CN.json", lines(ROWS))
    hub.put("BelleGroup/train_2M_CN", "load.py", b"raise SystemExit")
    told("belle_2m")
    assert [row for _, row in Source(path="belle_2m").rows()] == ROWS
    assert left(Path("data")) == [".fetched.json", "train_2M_CN.json"]
    asked = len(hub.asked)
    assert "nothing downloaded" in told("belle_2m")
    assert len(hub.asked) == asked


def test_a_damaged_file_is_fetched_again_and_a_mended_one_made_again(hub, told, caplog):
    hub.put("databricks/databricks-dolly-15k", "databricks-dolly-15k.jsonl", lines(ROWS))
    told("dolly")
    Path("data/raw_train/dolly/databricks-dolly-15k.jsonl").write_bytes(b"damaged")
    Path("data/dolly.jsonl").unlink()
    told("dolly")
    assert "not what was fetched any more" in caplog.text
    assert Path("data/dolly.jsonl").read_bytes() == lines(ROWS)


def test_a_result_that_people_changed_is_theirs(hub, told, caplog):
    hub.put("databricks/databricks-dolly-15k", "databricks-dolly-15k.jsonl", lines(ROWS))
    told("dolly")
    Path("data/dolly.jsonl").write_bytes(lines(ROWS[:1]))
    told("dolly")
    assert "changed since it was made, and left as it is" in caplog.text
    assert Path("data/dolly.jsonl").read_bytes() == lines(ROWS[:1])


def test_a_file_of_that_name_that_was_there_is_never_overwritten(hub, told):
    Path("data").mkdir()
    Path("data/dolly.jsonl").write_bytes(b"mine")
    assert "there already, and not from here: left as it is" in told("dolly")
    assert Path("data/dolly.jsonl").read_bytes() == b"mine"
    assert hub.asked == []


def test_a_file_put_there_by_hand_counts_if_its_hash_does(hub, told, monkeypatch, caplog):
    entry = Entry(
        about="x", licence="y", shape="z", page="p", process="copy", result="mine.json",
        files=[Remote(url=f"{hub.url}/mine.json", sha1=hashlib.sha1(b"[]").hexdigest())],
    )  # fmt: skip
    monkeypatch.setattr(sets, "catalogue", lambda: {"mine": entry})
    raw = Path("data/raw_train/mine/mine.json")
    raw.parent.mkdir(parents=True)
    raw.write_bytes(b"[1]")
    hub.files["/mine.json"] = b"[]"
    told("mine")
    assert "not the file that is meant" in caplog.text
    assert len(hub.asked) == 1
    raw.with_name(".fetched.json").unlink()
    Path("data/mine.json").unlink()
    assert "0 files downloaded" in told("mine")
    assert len(hub.asked) == 1


def test_what_fails_does_not_stop_the_others(hub, told):
    hub.put("databricks/databricks-dolly-15k", "databricks-dolly-15k.jsonl", lines(ROWS))
    with pytest.raises(SetupError, match=r"1 of 2 sets were not fetched:\nlima: "):
        told("lima", "dolly")
    assert Path("data/dolly.jsonl").is_file()


def test_an_unknown_name_is_offered_the_nearest_before_anything_is_fetched(hub, told):
    with pytest.raises(DataError, match="dollly: no public set of that name; did you mean 'dolly'"):
        told("dolly", "dollly")
    assert hub.asked == []


def test_a_set_without_a_public_copy_says_where_to_put_it(told):
    with pytest.raises(DataError, match=r"no public copy of its file is known.*put it at data/sharegpt_zh_27k\.json"):
        told("sharegpt_zh")


def test_what_comes_with_danlu_is_not_fetched(hub, told):
    assert "identity.jsonl: comes with danlu" in told("identity")
    assert hub.asked == []


def test_making_a_result_that_breaks_leaves_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS) + b"{")
    (tmp_path / ".made.json.tmp-12345678").write_bytes(b"of a killed process")
    with pytest.raises(DataError, match=r"a\.jsonl:3"):
        make("merge", [tmp_path / "a.jsonl"], tmp_path / "made.json")
    assert left(tmp_path) == ["a.jsonl"]


def test_a_result_whose_making_was_killed_is_made_again(hub, told, monkeypatch):
    hub.put("databricks/databricks-dolly-15k", "databricks-dolly-15k.jsonl", lines(ROWS))

    def killed(process, files, to):
        (to.parent / f".{to.name}.tmp-12345678").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(sets, "make", killed)
    with pytest.raises(KeyboardInterrupt):
        told("dolly")
    assert not Path("data/dolly.jsonl").exists()
    monkeypatch.setattr(sets, "make", make)
    asked = len(hub.asked)
    told("dolly")
    assert Path("data/dolly.jsonl").read_bytes() == lines(ROWS)
    assert left(Path("data")) == [".fetched.json", "databricks-dolly-15k.jsonl", "dolly.jsonl"]
    assert len(hub.asked) == asked


def test_half_a_character_is_left_out_and_counted(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "\\ud800"}\n{"a": "b"}\n')
    make("merge", [tmp_path / "a.jsonl"], tmp_path / "made.jsonl")
    assert (tmp_path / "made.jsonl").read_bytes() == b'{"a": "b"}\n'
    assert "1 rows hold half of a character and are left out" in caplog.text


def test_an_id_of_the_hub_is_read_from_its_cache_afterwards(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.put("me/mine", "data/train-00000-of-00001.jsonl", lines(ROWS))
    hub.put("me/mine", "data/test-00000-of-00001.jsonl", lines(ROWS[:1]))
    hub.put("me/mine", "mine.py", b"raise SystemExit")
    assert [row for _, row in Source(path="me/mine").rows()] == ROWS
    assert [row for _, row in Source(path="me/mine?split=test").rows()] == ROWS[:1]
    [file] = Source(path="me/mine").files
    assert REVISION in str(file)
    assert not any("mine.py" in path for path in hub.paths())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert [row for _, row in Source(path="me/mine").rows()] == ROWS
    with pytest.raises(SetupError, match="me/other: .* cannot be reached"):
        _ = Source(path="me/other").files
    file.unlink()
    with pytest.raises(SetupError, match="me/mine: .* its files are not on this machine"):
        _ = Source(path="me/mine").files


def test_an_id_that_the_hub_has_not_or_has_shut_says_so(hub, monkeypatch):
    with pytest.raises(DataError, match="me/none: neither a file or folder here, nor a data set of the hub"):
        _ = Source(path="me/none").files
    hub.statuses["/api/datasets/me/shut/revision/main"] = [401]
    with pytest.raises(SetupError, match=r"me/shut: not open to everybody.*set HF_TOKEN"):
        _ = Source(path="me/shut").files
    hub.put("me/script", "only.py", b"")
    with pytest.raises(DataError, match="me/script: no file of rows for it"):
        _ = Source(path="me/script").files


def test_the_client_follows_nothing_by_itself():
    with client() as asking:
        assert isinstance(asking, httpx.Client)
        assert not asking.follow_redirects
