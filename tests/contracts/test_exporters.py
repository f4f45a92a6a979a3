"""Export's formats and reports are what core's `ExporterLike` and `ReportLike` ask for."""

import dataclasses
import importlib.metadata
import inspect
from pathlib import Path

import pytest
import torch

from leyden.core.interfaces import ExporterLike, ReportLike
from leyden.export import Report

ENTRIES = list(importlib.metadata.entry_points(group="leyden.export.formats"))


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.name)
def exporter(request):
    found = request.param.load()
    return found() if isinstance(found, type) else found


def test_the_entry_point_onnx_is_there():
    assert "onnx" in {entry.name for entry in ENTRIES}


def test_a_format_is_exporter_like(exporter):
    assert isinstance(exporter, ExporterLike)
    assert all(suffix.startswith(".") for suffix in exporter.suffixes)
    assert all(isinstance(module, str) for module in exporter.requires)
    asked = list(inspect.signature(ExporterLike.export).parameters)[1:-1]
    assert list(inspect.signature(exporter.export).parameters)[: len(asked)] == asked


def test_a_format_answers_with_a_report(exporter, tmp_path):
    path = tmp_path / f"m{exporter.suffixes[0]}"
    report = exporter.export(torch.nn.Linear(3, 2), path, torch.randn(2, 3))
    assert isinstance(report, ReportLike)
    assert isinstance(report.path, Path)
    assert path.exists()


def test_a_report_is_report_like_and_frozen():
    report = Report(Path("m.onnx"), "onnx", verified=False)
    assert isinstance(report, ReportLike)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.format = "other"
