"""The server of a page. Oracle: what a plain HTTP client sees."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from stepped_runs import rows_of, stepped_run
from written_runs import frame

from octoscale.report.page import server
from octoscale.report.page.server import is_loopback, is_this_machine, serving
from octoscale.runs.parts import write_part
from octoscale.system.errors import UserError
from octoscale.system.lock import LOCK, exclusive_run, is_held


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A run that is served, looked at anew for each request: (run, ask)."""
    monkeypatch.setattr(server, "_PERIOD", 0)
    monkeypatch.setattr(server, "_SHARE", 1e9)
    run = stepped_run(tmp_path / "run", 4)
    with serving(run.path, port=0) as url:

        def ask(path="/", method="GET", **headers):
            place = urlsplit(url)
            client = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
            client.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = client.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

        yield run, ask


def test_there_are_three_things_and_no_other_file(site):
    run, ask = site
    assert ask("/")[0] == 200
    assert json.loads(ask("/data.json")[1])["runs"][0]["scales"]["records"] == 48
    assert json.loads(ask("/state.json")[1])["state"]["name"] == "finished"
    for path in ("/run.json", "/../run.json", "/%2e%2e/run.json", "//etc/passwd", "/scales", "/data.json/", "/x"):
        assert ask(path)[0] == 404
    assert b'"plan"' in run.header.read_bytes()


def test_it_can_only_be_read(site):
    _, ask = site
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert ask("/", method)[0] == 405
    status, body, headers = ask("/", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


def test_a_host_of_another_name_is_refused(site):
    _, ask = site
    for host in ("evil.example", "evil.example:8008", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        for path in ("/", "/data.json", "/state.json"):
            assert ask(path, Host=host)[0] == 403
    for host in ("localhost:1", "127.0.0.1", "[::1]:8008", "LOCALHOST."):
        assert ask("/state.json", Host=host)[0] == 200


@pytest.mark.parametrize(
    ("header", "given", "wanted"),
    [
        ("127.0.0.1:80", "127.0.0.1", True),
        ("192.168.0.7", "0.0.0.0", True),
        ("[::1]", "::1", True),
        ("[fe80::1]:8008", "::", True),
        ("mine:8008", "mine", True),
        (socket.gethostname(), "0.0.0.0", True),
        ("other:8008", "mine", False),
        (None, "127.0.0.1", False),
        (":8008", "127.0.0.1", False),
    ],
)
def test_which_hosts_are_this_machine(header, given, wanted):
    assert is_this_machine(header, given) is wanted


def test_loopback_is_known():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "mine")] == [False] * 4


def test_a_browser_that_knows_the_state_gets_no_body(site):
    run, ask = site
    _, body, headers = ask("/state.json")
    assert ask("/state.json", If_None_Match=headers["ETag"])[:2] == (304, b"")
    write_part(run.scales, frame(*rows_of(4)))
    status, changed, _ = ask("/state.json", If_None_Match=headers["ETag"])
    assert status == 200
    assert json.loads(changed)["version"] != json.loads(body)["version"]


def test_policies_stand_in_the_headers_too(site):
    headers = site[1]("/")[2]
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


def test_it_says_whether_the_run_goes_on_ended_or_died(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_PERIOD", 0)
    monkeypatch.setattr(server, "_SHARE", 1e9)
    live = server.LiveRun(tmp_path / "run")
    assert live.state()["state"]["name"] == "not begun"
    run = stepped_run(tmp_path / "run", 4, finished=False)
    with exclusive_run(run.path):
        assert live.state()["state"]["name"] == "running"
    stopped = live.state()["state"]
    assert stopped["name"] == "stopped"
    assert "--resume" in stopped["text"]
    (run.path / LOCK).touch()  # what a killed process leaves
    assert live.state()["state"]["name"] == "died"
    monkeypatch.setattr("octoscale.report.page.state.is_held", lambda _: None)
    unknown = live.state()["state"]
    assert unknown["name"] == "unknown"
    assert "--resume" not in unknown["text"]


def test_a_lock_of_another_process_is_seen_and_of_a_killed_one_too(tmp_path):
    code = (
        "import sys, time; from octoscale.system.lock import exclusive_run\n"
        "with exclusive_run(sys.argv[1]):\n    print('held', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        os.kill(other.pid, signal.SIGKILL)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert not is_held(tmp_path)
    assert (tmp_path / LOCK).exists()
    assert not is_held(tmp_path / "nowhere")


def test_a_port_that_is_taken_is_an_error_if_it_was_asked_for_and_another_one_if_not(tmp_path, monkeypatch):
    with serving(tmp_path, port=0) as url:
        port = urlsplit(url).port
        with pytest.raises(UserError, match=f"port {port}: .*try --port 0"), serving(tmp_path, port=port):
            pass
        monkeypatch.setattr(server, "PORT", port)
        with serving(tmp_path) as other:
            assert urlsplit(other).port not in (port, 0)
    with pytest.raises(UserError, match="port 70000"), serving(tmp_path, port=70000):
        pass
    with pytest.raises(UserError, match=r"cannot serve on 203\.0\.113\.1"), serving(tmp_path, "203.0.113.1"):
        pass


def test_it_ends_with_its_block(tmp_path):
    before = threading.active_count()
    with serving(tmp_path, port=0) as url:
        place = urlsplit(url)
    assert threading.active_count() == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((place.hostname, place.port), timeout=5)


class Clock:
    """Stands for the module time: it goes on only when somebody works."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.mark.parametrize(("seconds", "rest"), [(0.1, 0.8), (0.7, 1.4), (206, 2.0)])
def test_after_a_look_it_rests_as_long_as_its_share_wants_but_never_for_minutes(seconds, rest, tmp_path, monkeypatch):
    clock, looks = Clock(), []
    live = server.LiveRun(stepped_run(tmp_path / "run", 2).path)

    def refresh():
        looks.append(clock.now)
        clock.now += seconds
        return False

    monkeypatch.setattr(server, "time", clock)
    monkeypatch.setattr(live._reader, "refresh", refresh)
    live.state()
    for wait in (rest - 0.01, 0.02):
        clock.now += wait
        live.state()
    assert looks == [1000.0, pytest.approx(1000 + seconds + rest + 0.01)]


@pytest.mark.parametrize("ask", ["data", "page"])
def test_what_it_takes_to_write_the_page_is_work_too(ask, tmp_path, monkeypatch):
    clock, looks = Clock(), []
    live = server.LiveRun(stepped_run(tmp_path / "run", 2).path)
    content = live._content()

    def made():
        clock.now += 0.6
        return content

    monkeypatch.setattr(server, "time", clock)
    monkeypatch.setattr(live, "_content", made)
    monkeypatch.setattr(live._reader, "refresh", lambda: looks.append(clock.now))
    getattr(live, ask)()
    for wait in (1.19, 0.02):
        clock.now += wait
        live.state()
    assert looks == [1000.0, pytest.approx(1001.81)]


@pytest.mark.parametrize("broken", ["folder.read_results", "folder.Scales.add", "folder.state_of"])
def test_news_that_an_error_came_upon_are_told_afterwards_and_once(broken, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_PERIOD", 0)
    monkeypatch.setattr(server, "_SHARE", 1e9)
    run = stepped_run(tmp_path / "run", 2)
    live = server.LiveRun(run.path)
    before = live.state()["version"]
    write_part(run.scales, frame(*rows_of(2)))
    run.append_metrics({"phase": "train", "scaling": "amax", "step": 3, "loss": 3.0})
    with monkeypatch.context() as patch:
        patch.setattr(f"octoscale.report.page.{broken}", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            live.state()
    after = live.state()["version"]
    assert after != before
    assert live.state()["version"] == after
    (shown,) = json.loads(live.data()[0])["runs"]
    assert (shown["scales"]["records"], shown["series"][0]["points"]) == (36, 3)


def follow(url, seen):
    """What a page does: ask for the state, and for all data if they are new, until nobody answers."""
    known = None
    with contextlib.suppress(OSError):
        while True:
            with urllib.request.urlopen(f"{url}state.json", timeout=60) as answer:
                version = json.loads(answer.read())["version"]
            if version != known:
                with urllib.request.urlopen(f"{url}data.json", timeout=60) as answer:
                    data = json.loads(answer.read())
                known = data["version"]
                seen.append((data["runs"][0]["scales"]["records"], data["runs"][0]["state"]["name"]))
            time.sleep(0.05)


@pytest.mark.parametrize("ending", ["done", "an error"])
def test_an_open_page_shows_how_the_run_ended(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_FAREWELL", 1e9)
    monkeypatch.setattr(server, "_PERIOD", 1e9)  # it is looked at once in the beginning, and then in the end
    monkeypatch.setattr(server, "_LONGEST", 1e9)
    seen = []
    raised = pytest.raises(ZeroDivisionError) if ending == "an error" else contextlib.nullcontext()
    with raised, serving(tmp_path / "run", port=0, to_the_end=True) as url:
        page = threading.Thread(target=follow, args=(url, seen), daemon=True)
        page.start()
        while not seen:
            time.sleep(0.01)
        stepped_run(tmp_path / "run", 4, finished=ending == "done")
        if ending == "an error":
            _ = 1 / 0
    page.join(60)
    assert seen == [(0, "not begun"), (48, "finished" if ending == "done" else "stopped")]


def test_it_waits_for_no_page_that_was_never_there_nor_for_one_that_left_longer_than_a_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_FAREWELL", 1e9)
    with serving(tmp_path / "run", port=0, to_the_end=True):
        stepped_run(tmp_path / "run", 2)
    with serving(tmp_path / "run", port=0, to_the_end=True) as url:
        urllib.request.urlopen(url, timeout=60).close()  # it has the last version already
    monkeypatch.setattr(server, "_FAREWELL", 0.2)
    with serving(tmp_path / "other", port=0, to_the_end=True) as url:
        urllib.request.urlopen(url, timeout=60).close()
        stepped_run(tmp_path / "other", 2)


def _hear_ctrl_c():
    """A shell starts what is in its background deaf to Ctrl-C, these tests perhaps."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_watch_serves_until_ctrl_c_and_warns_of_other_hosts(tmp_path):
    run = stepped_run(tmp_path / "run", 2)
    script = Path(sys.executable).with_name("octoscale")
    command = [sys.executable, str(script), "watch", str(run.path), "--port", "0", "--host", "0.0.0.0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_ctrl_c)
    try:
        warning, address = process.stderr.readline(), process.stderr.readline()
        assert "no password" in warning
        place = urlsplit(address.split(" at ")[1].split()[0])
        client = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        client.request("GET", "/state.json")
        assert client.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
