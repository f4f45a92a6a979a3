"""A real TensorBoard server on loopback is asked for what was logged."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from leyden.loggers import TensorBoardLogger


class Server:
    """`tensorboard --logdir` on a free port, ended with its helper process."""

    def __init__(self, folder):
        command = [
            sys.executable,
            "-m",
            "tensorboard.main",
            "--logdir",
            str(folder),
            "--host",
            "127.0.0.1",
            "--port",
            "0",
        ]
        self.process = subprocess.Popen(
            [*command, "--load_fast", "auto", "--reload_interval", "1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(r"http://[\d.]+:\d+", line):
                self.url = found[0]
                break
        else:
            raise AssertionError("".join(said))
        # Its further words must not fill the pipe.
        self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.reader.start()

    def ask(self, path, body=None):
        request = urllib.request.Request(
            f"{self.url}/data/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def wait(self, path, ready, body=None, seconds=60.0):
        end, answer = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                answer = self.ask(path, body)
            except urllib.error.HTTPError as error:
                answer = error.code
            else:
                if ready(answer):
                    return answer
            time.sleep(0.2)
        raise AssertionError(f"{path} answered {answer}")

    def close(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(10)
        self.process.stderr.close()


@pytest.fixture
def serve():
    servers = []

    def begin(folder):
        servers.append(Server(folder))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


def points(answer):
    return [(step, value) for _, step, value in answer]


def test_the_server_shows_scalars_and_hyperparameters_of_a_resumed_run(tmp_path, serve):
    first = TensorBoardLogger(tmp_path, name="digits")
    first.log_hyperparams({"lr": 0.125, "model": {"width": 8}})
    for step in range(4):
        first.log_metrics({"loss": step / 4, "hp_metric": step * 2.0}, step)
    state = first.state_dict()
    for step in range(4, 8):
        first.log_metrics({"loss": -1.0, "hp_metric": -1.0}, step)
    first.save()

    server = serve(tmp_path)
    run = "digits/version_0"
    scalars = f"plugin/scalars/scalars?run={run}&tag="
    assert points(server.wait(f"{scalars}loss", lambda answer: len(answer) == 8))[-1] == (7, -1.0)

    resumed = TensorBoardLogger(tmp_path, name="digits")
    resumed.load_state_dict(state)
    resumed.log_hyperparams({"lr": 0.125, "model": {"width": 8}})
    for step in range(4, 10):
        resumed.log_metrics({"loss": step / 4, "hp_metric": step * 2.0}, step)
    resumed.finalize("success")

    # The server that watched the first attempt drops its steps when they come again.
    answer = server.wait(f"{scalars}loss", lambda answer: len(answer) == 10)
    assert points(answer) == [(step, step / 4) for step in range(10)]
    assert set(server.ask("plugin/scalars/tags")[run]) == {"loss", "hp_metric"}

    table = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 10, "startIndex": 0}
    column = {"metric": {"group": "", "tag": "hp_metric"}, "order": "ORDER_UNSPECIFIED"}
    groups = server.wait(
        "plugin/hparams/session_groups", lambda answer: answer["totalSize"] == 1, {**table, "colParams": [column]}
    )["sessionGroups"]
    assert groups[0]["hparams"] == {"lr": 0.125, "model/width": 8.0}
    assert [value["value"] for value in groups[0]["metricValues"] if value["name"]["tag"] == "hp_metric"] == [18.0]
