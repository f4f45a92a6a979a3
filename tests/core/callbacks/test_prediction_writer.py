"""BasePredictionWriter: what is written when."""

import pytest
import torch

from leyden.core.callbacks import BasePredictionWriter
from leyden.core.errors import MisconfigurationException


class Writer(BasePredictionWriter):
    def __init__(self, folder, write_interval):
        super().__init__(write_interval)
        self.folder, self.wholes = folder, []

    def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, batch, batch_idx, dataloader_idx):
        assert batch_indices == [2 * batch_idx, 2 * batch_idx + 1]
        assert torch.equal(prediction, batch[0] * 2)
        torch.save(prediction, self.folder / f"{dataloader_idx}-{batch_idx}.pt")

    def write_on_epoch_end(self, trainer, pl_module, predictions, batch_indices):
        assert batch_indices == [[[0, 1], [2, 3]]] * (len(predictions) if isinstance(predictions[0], list) else 1)
        self.wholes.append(predictions)


@pytest.fixture
def predict(quiet, tiny, numbers, tmp_path):
    class Doubling(tiny):
        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return batch[0] * 2

    def run(interval, loaders=1):
        folder = tmp_path / "predictions"
        folder.mkdir(exist_ok=True)
        writer = Writer(folder, interval)
        trainer = quiet(callbacks=writer)
        given = [numbers(4) for _ in range(loaders)] if loaders > 1 else numbers(4)
        assert trainer.predict(Doubling(), given, return_predictions=False) is None
        return writer, sorted(p.name for p in folder.iterdir())

    return run


def test_batches(predict):
    writer, files = predict("batch", loaders=2)
    assert files == ["0-0.pt", "0-1.pt", "1-0.pt", "1-1.pt"]
    assert torch.load(writer.folder / "1-1.pt").tolist() == [4, 6]
    assert not writer.wholes


def test_everything_at_the_end(predict):
    writer, files = predict("epoch")
    assert not files
    assert [[p.tolist() for p in whole] for whole in writer.wholes] == [[[0, 2], [4, 6]]]


def test_both_and_one_list_per_loader(predict):
    writer, files = predict("batch_and_epoch", loaders=2)
    assert len(files) == 4
    assert [[p.tolist() for p in loader] for loader in writer.wholes[0]] == [[[0, 2], [4, 6]]] * 2


def test_indices_follow_the_sampler_and_are_none_without_one(quiet, tiny):
    class Seen(BasePredictionWriter):
        def __init__(self):
            super().__init__("batch_and_epoch")
            self.batches, self.whole = [], None

        def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, *args):
            self.batches.append(batch_indices)

        def write_on_epoch_end(self, trainer, pl_module, predictions, batch_indices):
            self.whole = batch_indices

    class Echo(tiny):
        def predict_step(self, batch, batch_idx):
            return batch

    data = torch.utils.data.DataLoader(torch.arange(5.0), batch_size=2, sampler=[4, 0, 2, 3, 1], num_workers=1)
    seen = Seen()
    quiet(callbacks=seen).predict(Echo(), data)
    assert seen.batches == [[4, 0], [2, 3], [1]]
    assert seen.whole == [[[4, 0], [2, 3], [1]]]
    assert isinstance(data.batch_sampler, torch.utils.data.BatchSampler)
    assert type(data.batch_sampler).__name__ == "BatchSampler"
    seen = Seen()
    quiet(callbacks=seen).predict(Echo(), [torch.ones(1), torch.ones(1)])
    assert seen.batches == [None, None]


def test_wrong_use_is_refused(quiet, tiny, numbers):
    with pytest.raises(MisconfigurationException, match="`write_interval` should be one of"):
        BasePredictionWriter("step")

    class Half(BasePredictionWriter):
        def write_on_batch_end(self, *args):
            pass

    class Echo(tiny):
        def predict_step(self, batch, batch_idx):
            return batch

    with pytest.raises(MisconfigurationException, match="override `write_on_epoch_end`"):
        quiet(callbacks=Half("epoch")).predict(Echo(), numbers())
