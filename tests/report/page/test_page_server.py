"""The server of a page. Oracle: what a plain HTTP client sees."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
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
