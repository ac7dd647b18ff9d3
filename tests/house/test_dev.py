"""Which build of torch `./dev` takes. Oracle: its own words, on machines that stubs on the PATH imitate."""

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

DEV = Path(__file__).resolve().parents[2] / "dev"
pytestmark = pytest.mark.skipif(not DEV.exists() or shutil.which("bash") is None, reason="./dev is for a clone")


class Page(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200 if self.path == "/whl/cpu/torch/" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def index():
    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    server.shutdown()
    server.server_close()


@pytest.fixture
def nobody():
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/whl/cpu"


def says(folder, index, *, system="Linux", machine="x86_64", gpu=False, pip="", **environment):
    """What `./dev torch` says on such a machine."""
    stubs = {
        "uname": f"case $1 in -s) echo {system} ;; *) echo {machine} ;; esac",
        "nvidia-smi": "exit 0" if gpu else "exit 9",
        "python3": f'if [ "$2" = pip ]; then echo "{pip}"; else exec {sys.executable} "$@"; fi',
    }
    for name, body in stubs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PIP_") and key != "PYTHON"}
    words = clean | {"PATH": f"{folder}:{os.environ['PATH']}", "OCTOSCALE_TORCH_INDEX": index} | environment
    done = subprocess.run(["bash", DEV, "torch"], env=words, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a GPU")
def test_without_a_gpu_the_build_for_cpus(tmp_path, index):
    assert f"the build for CPUs, from {index}" in says(tmp_path, index)


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a GPU")
def test_an_index_that_does_not_answer_is_said_with_the_size(tmp_path, nobody):
    words = says(tmp_path, nobody)
    assert f"5.7 GB with its libraries, for {nobody} does not answer" in words
    assert "PIP_EXTRA_INDEX_URL" in words


def test_with_a_gpu_the_build_with_cuda(tmp_path, index):
    assert "the build with CUDA, 5.7 GB with its libraries, for the NVIDIA GPU" in says(tmp_path, index, gpu=True)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_elsewhere_the_package_index_has_no_other(system, machine, tmp_path, index):
    assert "the package index's own build, which is for CPUs" in says(tmp_path, index, system=system, machine=machine)


@pytest.mark.parametrize("name", ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"])
def test_what_the_user_set_wins(name, tmp_path, index):
    words = says(tmp_path, index, gpu=True, **{name: "https://example.org/simple"})
    assert "that PIP_INDEX_URL or PIP_EXTRA_INDEX_URL names" in words
    words = says(tmp_path, index, pip="global.extra-index-url='https://example.org/simple'")
    assert "that pip's configuration names" in words


def test_an_index_is_found_however_long_the_configuration_that_follows(tmp_path, index):
    """A reader that stops at its first match ends the writer, and under pipefail that is no match."""
    rest = "\n".join(f"global.find-links='/wheels/{number}'" for number in range(20_000))
    words = says(tmp_path, index, pip=f"global.extra-index-url='https://example.org/simple'\n{rest}")
    assert "that pip's configuration names" in words


@pytest.mark.parametrize("version", ["3.1", "2.9", "nonsense"])
def test_an_interpreter_that_the_machine_has_not_is_named(version):
    """3.1 is not 3.11."""
    done = subprocess.run(["bash", DEV, "test", "--python", version], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"dev: this machine has no Python {version}, on PATH or under pyenv\n"
