import functools
import json

import datasets
import pytest

from s2d_hf import archive, precision
from s2d_hf.archive import job as job_module
from s2d_hf.archive import read_archive
from s2d_hf.timeline.analysis import S2DTimeline
from tests.archive.stand_in import StandIn, read_calls, write_archive

# in this process, where a stand-in can take the place of the model
analyse_archive = functools.partial(archive.analyse_archive, stall_limit=None)


@pytest.fixture
def loaded(tmp_path, monkeypatch) -> list[dict]:
    """What `S2DTimeline.from_pretrained` was called with; a stand-in with its arguments is in its place."""
    calls = []

    @functools.wraps(S2DTimeline.from_pretrained)
    def from_pretrained(model, **settings):
        calls.append({"model": model, **settings})
        return StandIn(tmp_path / "calls")

    monkeypatch.setattr(S2DTimeline, "from_pretrained", staticmethod(from_pretrained))
    return calls


def test_the_settings_reach_the_analyser(loaded, tmp_path):
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one", "b.mp4": "broken"})
    summary = analyse_archive(videos, tmp_path / "out", "someone/model", progress=False, fps=4.0, dtype="float32")
    assert loaded == [{"model": "someone/model", "device": None, "fps": 4.0, "dtype": "float32"}]
    assert (summary.num_done, summary.num_failed) == (1, 1)
    assert list(read_archive(tmp_path / "out")["video"]) == ["a.mp4"] * 3


def test_a_job_goes_on_with_what_it_was_begun_with_only(loaded, tmp_path, monkeypatch):
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one"})
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    analyse_archive("videos", "out", "model", progress=False)
    # the same, said differently
    model = tmp_path / "model"
    analyse_archive(videos, tmp_path / "out", model, progress=False, fps=8.0, device="cpu", batch_size=4)
    assert read_calls(tmp_path / "calls") == ["one"]
    others = write_archive(tmp_path / "others", {"a.mp4": "two"})
    for source, settings, message in (
        (videos, {"fps": 4.0}, "fps was 8.0 and is 4.0 now"),
        (videos, {"face_detector": "other"}, "face_detector was None and is 'other' now"),
        (others, {}, "source was .*videos' and is .*others' now"),
    ):
        with pytest.raises(ValueError, match=message):
            analyse_archive(source, tmp_path / "out", model, progress=False, **settings)
    with pytest.raises(ValueError, match=r"model was .*model' and is 'else' now"):
        analyse_archive(videos, tmp_path / "out", "else", progress=False)


def test_tokens_are_not_written_down(loaded, tmp_path):
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one"})
    hub_arguments = {"token": "hf_secret", "revision": "v2"}
    analyse_archive(videos, tmp_path / "out", "someone/model", progress=False, hub_arguments=hub_arguments)
    assert loaded[0]["hub_arguments"] == hub_arguments
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"hf_secret" not in path.read_bytes()
    with pytest.raises(ValueError, match="revision was 'v2' and is None now"):
        analyse_archive(videos, tmp_path / "out", "someone/model", progress=False)


def test_wrong_arguments_are_refused_before_anything_is_written(loaded, tmp_path):
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one"})
    with pytest.raises(TypeError, match="stride_of_windows"):
        analyse_archive(videos, tmp_path / "out", "model", stride_of_windows=3)
    with pytest.raises(ValueError, match="pass `ray=True`"):
        analyse_archive(videos, tmp_path / "out", "model", num_actors=2)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        analyse_archive(tmp_path / "nowhere", tmp_path / "out", "model")
    assert not (tmp_path / "out").exists()


def test_a_dataset_is_a_source(loaded, tmp_path):
    features = datasets.Features({"video": datasets.Video(decode=False)})
    rows = [{"bytes": content, "path": "x.mp4"} for content in (b"one", b"no face", b"two")]
    dataset = datasets.Dataset.from_dict({"video": rows}, features=features).cast_column("video", datasets.Video())
    for _ in range(2):
        summary = analyse_archive(dataset, tmp_path / "out", "model", progress=False)
        assert (summary.num_done, summary.num_without_face) == (3, 1)
    assert read_calls(tmp_path / "calls") == ["one", "no face", "two"]
    assert set(read_archive(tmp_path / "out")["video"]) == {"dataset[0]", "dataset[2]"}


@pytest.mark.parametrize("device, use_gpus", [(None, True), ("cuda", True), ("cpu", False)])
def test_ray_gets_the_same_job(loaded, tmp_path, monkeypatch, device, use_gpus):
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one"})
    given = {}

    def run_ray(items, output, factory, **options):
        factory()
        given.update(options, names=[item.name for item in items])

    monkeypatch.setattr(job_module, "run_ray", run_ray)
    options = {"num_actors": 3, "ray_address": "auto", "retry_failed": False, "progress": False}
    analyse_archive(videos, tmp_path / "out", "model", ray=True, device=device, **options)
    assert loaded[0]["device"] == device
    assert given["names"] == ["a.mp4"] and given["use_gpus"] == use_gpus
    assert (given["num_actors"], given["address"]) == (3, "auto")
    assert not given["retry_failed"] and not given["progress"]
    assert "device" not in given["settings"] and given["settings"]["fps"] == 8.0


@pytest.mark.parametrize(
    "asked, used",
    [({}, "cuda:1"), ({"device": None}, "cuda:1"), ({"device": "cuda"}, "cuda:1"), ({"device": "cpu"}, "cpu")],
)
def test_each_process_takes_its_own_gpu(loaded, tmp_path, monkeypatch, asked, used):
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one"})
    monkeypatch.setattr(job_module, "_own_device", lambda: "cuda:1")
    analyse_archive(videos, tmp_path / "out", "model", progress=False, **asked)
    assert loaded[0]["device"] == used


def test_what_auto_is_stays_with_the_folder(loaded, tmp_path, monkeypatch):
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one"})

    def run(is_faster: bool, output: str = "out", **asked) -> str:
        monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: is_faster)
        (videos / f"{len(list(videos.iterdir()))}.mp4").write_text("more")
        analyse_archive(videos, tmp_path / output, "model", progress=False, device="cpu", **asked)
        return loaded.pop()["dtype"]

    assert run(True) == "bfloat16"
    assert run(False) == run(False, dtype="auto") == run(False, dtype="bfloat16") == "bfloat16"
    with pytest.raises(ValueError, match="dtype was 'bfloat16' and is 'float32' now"):
        run(True, dtype="float32")
    assert run(False, "other", dtype="auto") == run(True, "other") == "float32"


@pytest.mark.parametrize("recorded", [None, "float32"])
def test_a_folder_of_an_earlier_version(loaded, tmp_path, monkeypatch, recorded):
    """Which computed in float32 where nothing was asked for, and wrote down what was."""
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: True)
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one"})
    job = functools.partial(analyse_archive, videos, tmp_path / "out", "model", progress=False, device="cpu")
    job(dtype="float32")
    path = tmp_path / "out" / "settings.json"
    stored = json.loads(path.read_text())
    stored["settings"]["dtype"] = recorded
    path.write_text(json.dumps(stored))
    for asked in ({}, {"dtype": "auto"}, {"dtype": "float32"}):
        (videos / f"{len(list(videos.iterdir()))}.mp4").write_text("more")
        job(**asked)
        assert loaded.pop()["dtype"] == "float32"
    with pytest.raises(ValueError, match=f"dtype was {recorded!r} and is 'bfloat16' now"):
        job(dtype="bfloat16")


def test_ray_is_needed_only_for_jobs_on_ray(warm_python):
    code = "import sys, s2d_hf.archive; assert 'ray' not in sys.modules and 'datasets' not in sys.modules"
    warm_python.run("-c", code).check_returncode()


def test_results_do_not_go_among_the_videos(loaded, tmp_path):
    videos = write_archive(tmp_path / "videos", {"a.mp4": "one"})
    with pytest.raises(ValueError, match="`output` is the folder of the videos"):
        analyse_archive(videos, tmp_path / "x" / ".." / "videos", "someone/model")
    assert [path.name for path in videos.iterdir()] == ["a.mp4"]
