"""Launchers of several machines find each other, or say who is missing."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from danlu.core.errors import RankLost, SetupError, UserError
from danlu.runs import meeting as meetings
from danlu.runs.meeting import KILLED, Meeting, Neighbours, Place, Verdict, free_port

NOBODY_STOPS = lambda: None  # noqa: E731


@pytest.fixture
def place() -> Place:
    return Place("127.0.0.1", free_port(0), nodes=2, wait_seconds=20)


def both(place: Place, work):
    """`work` with the meeting of each of two nodes."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda node: work(Meeting(replace(place, node=node), NOBODY_STOPS)), [0, 1]))


def test_two_nodes_meet_and_take_the_first_ones_folder(place):
    def meet(meeting):
        folder = meeting.chosen(f"/folder/of/{meeting.place.node}")
        info = meeting.next_rendezvous()
        return meeting, folder, info.rank, info.world_size, info.bootstrap_store_info.master_port

    (first, *one), (_, *other) = both(place, meet)
    assert one[0] == other[0] == "/folder/of/0"
    assert [one[1], other[1]] == [0, 1]
    assert one[2] == other[2] == 2
    assert one[3] == other[3] != place.port  # a store of their own for the ranks of each start
    assert first.missing() == []


def test_who_is_missing_is_named(place):
    alone = Meeting(replace(place, wait_seconds=0.5), NOBODY_STOPS)
    with pytest.raises(RankLost, match=r"node 1 of 2 did not come at 127.0.0.1:\d+ within 0.5 s"):
        alone.next_rendezvous()
    with pytest.raises(RankLost, match="node 0 of 2 did not come"):
        Meeting(Place("127.0.0.1", free_port(0), 1, 2, wait_seconds=0.5), NOBODY_STOPS)


def test_places_that_do_not_fit_are_named(place):
    first = Meeting(place, NOBODY_STOPS)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first.next_rendezvous)
        with pytest.raises(UserError, match="--gpus is 3 here and 1 on"):
            Meeting(replace(place, node=1, gpus=3), NOBODY_STOPS).next_rendezvous()
        with pytest.raises(UserError, match="--node-rank 1 is taken by"):
            Meeting(replace(place, node=1), NOBODY_STOPS).next_rendezvous()
        waiting.result()


def test_a_port_that_is_taken_is_named(place):
    first = Meeting(place, NOBODY_STOPS)
    with pytest.raises(SetupError, match=f"cannot listen on port {place.port}"):
        Meeting(place, NOBODY_STOPS)
    assert first.missing() == [0, 1]


def test_a_wait_can_be_interrupted(place):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Meeting(place, stop).next_rendezvous()


def test_neighbours_hear_why_others_end_and_miss_who_is_silent(place, monkeypatch):
    monkeypatch.setattr(meetings, "SILENT_SECONDS", 3.0)

    def meet(meeting):
        meeting.next_rendezvous()
        neighbours = Neighbours(meeting)
        neighbours.start()
        return neighbours

    first, second = both(place, meet)
    verdict = Verdict(137, "rank 3: killed by SIGKILL", KILLED, time.time())
    second.tell(verdict)
    wait_for(lambda: first.told() == [verdict])
    assert second.told() == []
    second.close()
    wait_for(lambda: len(first.told()) == 2)
    assert "node 1" in first.told()[1].words
    assert "gives no sign of life: rank 1" in first.told()[1].words
    first.close()


def test_a_node_that_is_done_is_not_missed(place, monkeypatch):
    monkeypatch.setattr(meetings, "SILENT_SECONDS", 3.0)

    def meet(meeting):
        meeting.next_rendezvous()
        neighbours = Neighbours(meeting)
        neighbours.start()
        return neighbours

    first, second = both(place, meet)
    assert not second.all_done()
    assert not first.all_done() or second.all_done()
    wait_for(first.all_done)
    second.close()
    time.sleep(4)
    assert first.told() == []
    first.close()


def wait_for(there) -> None:
    end = time.monotonic() + 15
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)
