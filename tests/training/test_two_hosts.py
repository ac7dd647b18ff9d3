"""Two hosts: network namespaces with a cable between them, and a torchrun in each. Oracle: one process."""

import os
import subprocess

import pytest
import transformers
from torchrun import ENVIRONMENT, command, losses, train, write_inputs

pytestmark = pytest.mark.skipif(
    not hasattr(transformers.PreTrainedModel, "is_distributed_loading_by_transformers"),
    reason=f"transformers {transformers.__version__} cannot train a model that is on many ranks",
)

ADDRESSES = ("10.77.0.1", "10.77.0.2")
CABLE = "cable0"


def ip(words):
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def hosts():
    """The names of two namespaces, each with its end of the cable."""
    names = [f"octoscale-{os.getpid()}-{side}" for side in "ab"]
    try:
        for name in names:
            ip(f"netns add {name}")
        ip(f"-n {names[0]} link add {CABLE} type veth peer name {CABLE} netns {names[1]}")
        for name, address in zip(names, ADDRESSES, strict=True):
            ip(f"-n {name} address add {address}/24 dev {CABLE}")
            ip(f"-n {name} link set {CABLE} up")
            ip(f"-n {name} link set lo up")
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(names)
        pytest.skip(f"no network namespaces here: {error}")
    yield names
    _remove(names)


def _remove(names):
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.slow
def test_two_hosts_train_as_one_process(hosts, tmp_path):
    """torchrun's rendezvous, and gloo, over the cable; the folder of the run is on both."""
    inputs = write_inputs(tmp_path)
    environment = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": CABLE}
    started = []
    for host, address in zip(hosts, ADDRESSES, strict=True):
        how = f"--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint {ADDRESSES[0]}:29500 --rdzv-id one"
        how += f" --local-addr {address} --rdzv-conf is_host={int(address == ADDRESSES[0])}"  # both have one hostname
        words = command(inputs, tmp_path / "hosts", ranks=how)
        words = ["ip", "netns", "exec", host, *words]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment))
    said = [process.communicate(timeout=300)[0].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    code, err = train(inputs, tmp_path / "one")
    assert code == 0, err
    assert losses(tmp_path / "hosts") == losses(tmp_path / "one")
    models = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("hosts", "one")]
    assert models[0] == models[1]
