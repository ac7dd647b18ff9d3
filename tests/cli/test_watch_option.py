"""The option --watch of what takes long. Oracle: the line that it prints, and what a client reads meanwhile."""

import json
import re
import threading
import time
import urllib.request

import pytest

from octoscale.report.page import server


@pytest.mark.parametrize(
    "command",
    [
        ("validate", "--window", "32", "--tokens", "64"),
        ("sweep", "--window", "32", "--tokens", "64", "--bias", "0"),
        ("train", "--window", "32", "--steps", "2", "--batch", "1", "--save-every", "0"),
    ],
    ids=lambda command: command[0],
)
def test_a_run_is_served_as_long_as_it_goes_on(command, run, checkpoint, text, monkeypatch):
    seen = []
    real = server.serving

    def looked_at(folder, **words):
        site = real(folder, port=0, **words)
        url = site.__enter__()
        with urllib.request.urlopen(f"{url}state.json", timeout=60) as answer:
            seen.append(json.loads(answer.read())["state"]["name"])
        site.url = url

        class Shown:
            def __enter__(self):
                return url

            def __exit__(self, *error):
                for _ in range(20):  # the folder is read about once a second at most
                    with urllib.request.urlopen(f"{url}data.json", timeout=60) as answer:
                        (shown,) = json.loads(answer.read())["runs"]
                    if shown["scales"]["records"]:
                        break
                    time.sleep(0.5)
                seen.append(shown["state"]["name"])
                seen.append(shown["scales"]["records"])
                return site.__exit__(*error)

        return Shown()

    monkeypatch.setattr(server, "serving", looked_at)
    name, *options = command
    code, _, err = run(name, checkpoint, "--text", text, *options, "--watch", "--out", "out")
    assert code == 0
    assert re.search(r"watch it at http://127\.0\.0\.1:\d+/", err)
    assert seen[:2] == ["not begun", "finished"]
    assert seen[2] > 0
    assert not [thread for thread in threading.enumerate() if thread.name == "octoscale-watch"]
