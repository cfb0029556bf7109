"""One signal is a wish, a second is an order."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from danlu.core.errors import Interrupted, Preempted
from danlu.engine.signals import Stop


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGTERM, Preempted, 75), (signal.SIGINT, Interrupted, 130)]
)
def test_the_first_signal_is_a_wish(number, error, code):
    before = signal.getsignal(number)
    with Stop() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        reason = stop.reason("saved")
        assert type(reason) is error
        assert reason.exit_code == code
    assert signal.getsignal(number) is before


def test_save_now_is_asked_once():
    with Stop() as stop:
        assert not stop.take_save_request()
        signal.raise_signal(signal.SIGUSR1)
        assert stop.take_save_request()
        assert not stop.take_save_request()
        assert not stop.requested


def test_another_thread_can_ask_but_not_catch():
    seen = []

    def work() -> None:
        with Stop() as stop:
            stop.request()
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


BUSY = """
import sys, time
sys.path.insert(0, {root!r})
from danlu.engine.signals import Stop
with Stop(echo_seconds={echo}) as stop:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_the_process_within_a_second(number):
    process = start(echo=0.0)
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=5) == -number
    assert time.monotonic() - began < 1


def test_a_launchers_echo_is_not_a_second_signal():
    process = start(echo=0.6)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.8)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 128 + signal.SIGTERM


def start(**options: object) -> subprocess.Popen:
    code = BUSY.format(root=os.getcwd(), **options)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process
