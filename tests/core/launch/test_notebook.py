"""A notebook trains on several devices, and goes on with what it trained."""

import os
import subprocess
import sys

import nbformat

EXECUTE = """
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read("train.ipynb", 4)
NotebookClient(notebook, timeout=120, allow_errors=True).execute()
nbformat.write(notebook, "train.ipynb")
"""

MODEL = """
import os

import torch
from torch.utils.data import DataLoader

import leyden.core as L


class Line(L.LightningModule):
    def __init__(self, fails=False):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1, bias=False)
        self.fails = fails

    def forward(self, batch):
        return self.layer(batch)

    def training_step(self, batch, batch_idx):
        if self.fails and self.global_rank == 1:
            raise ValueError("the loss is gone")
        loss = (self(batch) - 2 * batch).square().mean()
        self.log("loss", loss, sync_dist=True)
        self.log("world", float(self.trainer.world_size))
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.5)


def trainer(**options):
    return L.Trainer(accelerator="cpu", devices=2, max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **options)


data = DataLoader(torch.ones(32, 1))
model = Line()
"""

CELLS = {
    "define": MODEL,
    "fit": "first = trainer()\nfirst.fit(model, data)",
    "use": "print(first.global_step, sorted(first.callback_metrics.items()), round(model(torch.ones(1, 1)).item(), 3))",
    "fit again": "second = trainer(strategy='ddp_notebook')\nsecond.fit(model, data)\nprint(second.global_step)",
    "fail": "trainer().fit(Line(fails=True), data)",
    "go on": "print(round(model(torch.ones(1, 1)).item(), 3))",
}


def of_stream(cell):
    return "".join(output["text"] for output in cell["outputs"] if output.get("name") == "stdout")


def test_a_notebook_fits_and_goes_on(tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "train.ipynb")
    (tmp_path / "home").mkdir()
    (tmp_path / "scratch").mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1"}
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "scratch")}
    command = [sys.executable, "-c", EXECUTE]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    ran = dict(zip(CELLS, nbformat.read(tmp_path / "train.ipynb", 4).cells, strict=True))
    errors = {name: [o for o in cell["outputs"] if o["output_type"] == "error"] for name, cell in ran.items()}
    assert [name for name, found in errors.items() if found] == ["fail"]
    assert of_stream(ran["use"]) == "16 [('loss', tensor(0.)), ('world', tensor(2.))] 2.0\n"
    assert of_stream(ran["fit again"]).endswith("16\n")
    assert (errors["fail"][0]["ename"], errors["fail"][0]["evalue"]) == ("ValueError", "the loss is gone")
    # of the rank, where the cell's own name stands for its file
    assert "Traceback of rank 1:" in "\n".join(errors["fail"][0]["traceback"])
    assert of_stream(ran["go on"]).strip() == "2.0"
    assert not list((tmp_path / "scratch").glob("leyden-*"))
