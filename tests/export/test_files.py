"""Files: the old one or the new one, whole or refused."""

import contextlib
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from leyden.export import DamagedFileError, ExportError, ParityError, export, inspect, load


class Wrong(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] < 5 else x * 3


def test_a_failed_parity_leaves_nothing_and_keeps_the_old_file(classifier, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the old file")
    with pytest.raises(ParityError):
        export(Wrong(), path, inputs=torch.randn(2, 4))
    assert path.read_bytes() == b"the old file"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_a_new_export_replaces_the_old_one_with_the_mode_of_the_umask(tmp_path):
    path = tmp_path / "m.onnx"
    export(nn.ReLU(), path, inputs=torch.randn(2, 3))
    export(nn.Tanh(), path, inputs=torch.randn(2, 3))
    assert torch.equal(load(path)(torch.zeros(1, 3)), torch.zeros(1, 3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    umask = os.umask(0o022)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.reliability
def test_every_flipped_byte_is_found(classifier_file, tmp_path):
    whole = classifier_file.read_bytes()
    path = tmp_path / "flipped.onnx"
    for position in [*range(0, len(whole), 37), *range(len(whole) - 90, len(whole))]:
        changed = bytearray(whole)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError, match=r"flipped.onnx"):
            load(path)


@pytest.mark.reliability
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(classifier_file, share, tmp_path):
    whole = classifier_file.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DamagedFileError, match=r"cut.onnx"):
        load(path)
    with contextlib.suppress(DamagedFileError):
        inspect(path)


def test_a_file_of_another_program_is_refused(tmp_path):
    import onnx

    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "foreign.onnx")
    for read in (load, inspect):
        with pytest.raises(DamagedFileError, match=r"foreign.onnx bears no seal of leyden.export"):
            read(tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("no model at all")
    for read in (load, inspect):
        with pytest.raises(DamagedFileError, match=r"text.onnx"):
            read(tmp_path / "text.onnx")


def test_weights_in_a_file_of_their_own_travel_with_the_graph(tmp_path):
    module = nn.Linear(300, 40)
    report = export(module, tmp_path / "m.onnx", inputs=torch.randn(2, 300), external_data=True)
    (data,) = set(report.sizes) - {"m.onnx"}
    assert report.sizes[data] >= 300 * 40 * 4 > report.sizes["m.onnx"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"m.onnx", data}
    x = torch.randn(5, 300)
    torch.testing.assert_close(load(tmp_path / "m.onnx")(x), module(x).detach(), atol=1e-5, rtol=1e-4)
    content = bytearray((tmp_path / data).read_bytes())
    content[1000] ^= 1
    (tmp_path / data).write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"{data} is damaged"):
        load(tmp_path / "m.onnx")
    (tmp_path / data).unlink()
    with pytest.raises(DamagedFileError, match=f"needs the file '{data}' beside it"):
        load(tmp_path / "m.onnx")


def test_a_new_export_takes_the_old_weights_away_with_it(tmp_path):
    for _ in range(2):
        report = export(nn.Linear(300, 40), tmp_path / "m.onnx", inputs=torch.randn(2, 300), external_data=True)
        assert {entry.name for entry in tmp_path.iterdir()} == set(report.sizes)
    with pytest.raises(ValueError, match="external_data must be True, False or None, got 3"):
        export(nn.ReLU(), tmp_path / "m.onnx", inputs=torch.randn(2, 3), external_data=3)


@pytest.fixture
def read_only_folder():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        # The superuser may write anywhere, so the test is run as nobody.
        superuser = os.geteuid() == 0
        if superuser:
            os.seteuid(65534)
        yield folder
        if superuser:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_read_only_folder_is_named(read_only_folder):
    with pytest.raises(ExportError, match=r"can not write in .*Permission denied"):
        export(nn.ReLU(), read_only_folder / "m.onnx", inputs=torch.randn(2, 3))


def test_a_path_that_is_a_folder_or_in_none_is_named(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        export(nn.ReLU(), tmp_path / "folder.onnx", inputs=torch.randn(2, 3))
    with pytest.raises(ExportError, match="does not exist"):
        export(nn.ReLU(), tmp_path / "absent" / "m.onnx", inputs=torch.randn(2, 3))


@pytest.mark.reliability
def test_a_full_disk_keeps_the_old_file(tmp_path):
    script = """
        import resource, sys
        from pathlib import Path
        import torch
        from leyden.export import ExportError, export

        path = Path(sys.argv[1])
        export(torch.nn.ReLU(), path, inputs=torch.randn(2, 3))
        old = path.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        for external in (False, True):
            try:
                export(torch.nn.Linear(200, 200), path, inputs=torch.randn(2, 200), external_data=external)
            except ExportError as error:
                print(error)
            assert path.read_bytes() == old
            assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("m.onnx' failed: File too large; what stood there before was not touched") == 2
