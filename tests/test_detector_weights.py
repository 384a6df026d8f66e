"""Where the tests have the face detectors' weights from, in which order; the network is a stand-in."""

from pathlib import Path
from urllib.error import URLError

import pytest

from s2d_hf.face_detection_s2d import _DOWNLOADS

from .detector_weights import FILES, VARIABLE, find_weights


@pytest.fixture
def places(tmp_path, monkeypatch) -> dict[str, Path]:
    """Empty folders, in the order in which they are looked into."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folders = {
        "given": tmp_path / "given",
        "shared": tmp_path / "shared" / "weights",
        "torch": tmp_path / "torch" / "hub" / "checkpoints",
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, str(folders["given"]))
    return folders


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """The addresses that face-alignment was asked for; nothing can be reached."""
    asked = []

    def refuse(address: str, *arguments: object, **options: object) -> None:
        asked.append(address)
        raise URLError("no network")

    monkeypatch.setattr("face_alignment.utils.download_url_to_file", refuse)
    return asked


@pytest.mark.parametrize("detector", FILES)
def test_folders_in_their_order(detector, places, downloads, tmp_path):
    files = {name: [folder / file for file in FILES[detector]] for name, folder in places.items()}
    for path in (path for paths in files.values() for path in paths):
        path.touch()
    # take away what was found: the next one is that of the next folder
    for paths in files.values():
        for path in paths:
            assert find_weights(detector, tmp_path / "shared") == path
            path.unlink()
    assert downloads == []


@pytest.mark.parametrize("detector", FILES)
def test_without_a_file_it_is_downloaded_once(detector, places, monkeypatch, tmp_path):
    downloads = []

    def download(address: str, path: str, *arguments: object, **options: object) -> None:
        downloads.append(address)
        Path(path).write_text(address)

    monkeypatch.setattr("face_alignment.utils.download_url_to_file", download)
    address, file, _ = _DOWNLOADS[detector]
    for _ in range(2):
        found = find_weights(detector, tmp_path / "shared")
        assert found == places["torch"] / file and found.read_text() == address
    assert downloads == [address]


@pytest.mark.parametrize("detector", FILES)
def test_a_skip_says_how_to_give_them(detector, places, downloads, monkeypatch, tmp_path):
    for given in (True, False):
        if not given:
            monkeypatch.delenv(VARIABLE)
        with pytest.raises(pytest.skip.Exception) as skipped:
            find_weights(detector, tmp_path / "nowhere")
        reason = str(skipped.value)
        assert all(said in reason for said in (detector, "no network", VARIABLE, *FILES[detector], downloads[-1]))
    assert downloads == [_DOWNLOADS[detector][0]] * 2


def test_a_variable_that_names_no_folder_is_an_error(downloads, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "wieghts"))
    # a skip would end this test as one
    with pytest.raises(
        (NotADirectoryError, pytest.skip.Exception), match=rf"^{VARIABLE}: there is no folder .*wieghts"
    ):
        find_weights("yunet", tmp_path)
