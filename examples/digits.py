# SPDX-License-Identifier: Apache-2.0
"""Train, test, draw and export a classifier of handwritten digits, in under a minute on a laptop.

    uv run examples/digits.py [--root DIR] [--epochs N] [--seed N]

Stop it at any moment, with Ctrl-C or kill -9, and start it again: it goes on where it was and ends with the same bits.
Started after a finished run, it begins a new one beside it.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

import leyden.core as L
from leyden.bolts import DigitsClassifier, DigitsConfig, DigitsDataModule
from leyden.core.callbacks import EarlyStopping, ModelCheckpoint
from leyden.core.errors import LeydenError
from leyden.core.loggers import CSVLogger, default_logger
from leyden.export import Exported, export, load

INK, RED, GREY = "#1f2a44", "#c8102e", "#9aa3b2"


def main() -> None:
    """Run the whole job: train, test the best epoch, export it, check the export, draw, and say what came out."""
    root, config = prepare()
    model, data = DigitsClassifier(config), DigitsDataModule()
    best = ModelCheckpoint(monitor="val_loss", filename="best", save_last=True)
    table = CSVLogger(root, name="")
    board = default_logger(root, name="")
    trainer = L.Trainer(
        max_epochs=config.epochs,
        callbacks=[best, EarlyStopping(monitor="val_loss", patience=10)],
        logger=[table] if isinstance(board, CSVLogger) else [table, board],
        log_every_n_steps=10,
        default_root_dir=root,
    )
    trainer.fit(model, datamodule=data, ckpt_path="auto")
    tested = trainer.test(model, datamodule=data, ckpt_path="best", verbose=False)[0]

    folder = Path(table.log_dir)
    pictures, labels = data.test.tensors
    metadata = {"labels": [str(digit) for digit in range(10)], "pixels": "0 (white) to 16 (ink)"}
    report = export(model, folder / "digits.onnx", metadata=metadata)
    logits, difference = run_file(load(report.path), model, pictures)
    scores = model.test_metrics(logits, labels)
    draw(folder / "digits.png", read_curves(folder / "metrics.csv"), data.test, logits)

    print(report)
    print(f"\n{f'on {len(labels)} unseen pictures':24}{'accuracy':>10}{'macro F1':>10}{'wrong':>7}")
    for name, row in (("best checkpoint", tested), ("ONNX in onnxruntime", scores)):
        accuracy, f1 = float(row["test_accuracy"]), float(row["test_f1"])
        print(f"{name:24}{accuracy:>10.4f}{f1:>10.4f}{round((1 - accuracy) * len(labels)):>7}")
    print(f"largest difference between their logits: {difference:.1e}\n\nfiles in {folder}:")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"  {path.relative_to(folder)!s:60}{path.stat().st_size / 1024:8.1f} KiB")
    if len(trainer.loggers) == 2:
        print(f"curves of all runs: tensorboard --logdir {root}")


def prepare() -> tuple[Path, DigitsConfig]:
    """Read the command line, make the folder and seed the random numbers; what can not work is refused at once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("runs/digits"), help="folder of all runs (%(default)s)")
    parser.add_argument("--epochs", type=int, default=DigitsConfig.epochs, help="epochs to train (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers (%(default)s)")
    options = parser.parse_args()
    try:
        options.root.mkdir(parents=True, exist_ok=True)
        L.seed_everything(options.seed)
        # More threads add up in another order: the last digits of every number would depend on the machine.
        torch.set_num_threads(1)
        return options.root, DigitsConfig(epochs=options.epochs)
    except OSError as error:
        parser.error(f"--root {options.root} can not be a folder: {error.strerror}")
    except LeydenError as error:
        parser.error(str(error))


def run_file(exported: Exported, model: DigitsClassifier, pictures: Tensor) -> tuple[Tensor, float]:
    """Return what the exported file answers to pictures, and by how much that is not what the model answers."""
    with torch.no_grad():
        expected = model.eval()(pictures)
    logits: Tensor = exported(pictures)
    return logits, float((logits - expected).abs().max())


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the columns of the logged table as points ``(epoch, value)``."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [(int(row["epoch"]) + 1, float(row[name])) for row in rows if row[name]] for name in rows[0]}


def draw(path: Path, curves: dict[str, list[tuple[int, float]]], data: TensorDataset, logits: Tensor) -> None:
    """Draw the training curves and the hard pictures: the wrong answers, then the least certain ones."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    pictures, labels = data.tensors
    certainty, answers = logits.softmax(dim=1).max(dim=1)
    right = (answers == labels).sum().item() / len(labels)
    chosen, _ = min(curves["val_loss"], key=lambda point: point[1])
    figure = plt.figure(figsize=(12, 9), dpi=110)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.3), hspace=0.05, squeeze=False).flat
    figure.suptitle(
        f"Handwritten digits: {right:.1%} of {len(labels)} unseen pictures are right", fontsize=16, color=INK
    )

    for axes, title, names in zip(
        top.subplots(1, 2),
        ("loss", "score on the validation part"),
        ({"train_loss": "training", "val_loss": "validation"}, {"val_accuracy": "accuracy", "val_f1": "macro F1"}),
        strict=True,
    ):
        for (name, label), colour, width in zip(names.items(), (GREY, INK), (3, 1.5), strict=True):
            axes.plot(*zip(*curves[name], strict=True), label=label, color=colour, linewidth=width)
        axes.axvline(chosen, color=RED, linestyle=":", label="the epoch that was kept")
        axes.set_title(title, loc="left", color=INK)
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)

    bottom.suptitle("The wrong answers, then the least certain, with the model's probability", fontsize=12, color=INK)
    cells = bottom.subplots(4, 12)
    for axes, index in zip(cells.flat, (certainty + (answers == labels)).argsort().tolist(), strict=False):
        said, truth = int(answers[index]), int(labels[index])
        colour = INK if said == truth else RED
        axes.imshow(pictures[index, 0], cmap="Greys", vmin=0, vmax=16)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=colour, linewidth=1 if said == truth else 3)
        text = f"{said}" if said == truth else f"{said}, is {truth}"
        axes.set_title(f"{text}  {certainty[index]:.0%}", fontsize=9, color=colour, pad=3)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
