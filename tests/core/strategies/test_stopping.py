"""Two processes stop together, whichever of them is told to, and the script's exit code says why."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os
import signal
import sys

import torch

import leyden.core as L


class Line(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        if self.trainer.global_rank == 1 and self.global_step == 3:
            if sys.argv[2] == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            elif sys.argv[2] == "raise":
                raise ValueError("the second process can not go on")
            elif sys.argv[2] == "skip":
                return None
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


off = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = L.Trainer(accelerator="cpu", devices=2, max_epochs=-1, default_root_dir=sys.argv[1], **off)
trainer.fit(Line(), torch.utils.data.DataLoader(torch.ones(4000, 1)))
"""


@pytest.mark.parametrize(
    ("event", "code", "words"),
    [
        ("signal", 143, "interrupted; the run is saved in"),
        ("raise", 1, "ValueError: the second process can not go on"),
        ("skip", 1, "returning None is not supported with 2 processes"),
    ],
)
def test_two_processes_end_together(event, code, words, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path), event]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert bool(list(tmp_path.rglob("*.ckpt"))) == (event == "signal")
