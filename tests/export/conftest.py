"""One export per module of the zoo and session: the first one in a process pays seconds of imports."""

import pytest
import torch

from leyden.export import export


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def classifier():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.ReLU(), torch.nn.Linear(8, 3))


@pytest.fixture(scope="session")
def classifier_file(classifier, tmp_path_factory):
    """An exported classifier with metadata; copy it before changing it."""
    path = tmp_path_factory.mktemp("classifier") / "classifier.onnx"
    metadata = {"labels": ["cat", "dog", "eel"], "licence": "CC0", "mean": [0.5, 0.25], "nested": {"a": None}}
    export(classifier, path, inputs=torch.randn(2, 4), metadata=metadata)
    return path
