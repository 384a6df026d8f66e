import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import load_file, save_file

from s2d_hf import FANLandmarkEncoder, MobileFaceNetLandmarkEncoder, S2DImageProcessor
from s2d_hf.conversion import read_landmark_encoder
from s2d_hf.landmark_encoders_s2d import (
    ConvBlock,
    build_landmark_encoder,
    heatmap_peaks,
    load_landmark_encoder,
    save_landmark_encoder,
)

face_alignment = pytest.importorskip("face_alignment")

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def random_frames(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 96, 80, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mobilefacenet(landmark_weights) -> MobileFaceNetLandmarkEncoder:
    return read_landmark_encoder(landmark_weights)


@pytest.fixture(scope="module")
def fan() -> FANLandmarkEncoder:
    torch.manual_seed(0)
    return FANLandmarkEncoder(num_modules=2)


def test_features_and_points_of_the_authors_code(golden, mobilefacenet):
    frames = ((golden["frames"].float() / 255 - MEAN) / STD).flatten(0, 1)
    output = mobilefacenet(frames, return_landmarks=True)
    expected = golden["landmark_features"].flatten(0, 1)
    difference = (output.features - expected).abs()
    # The shared weights were rounded to float16, the golden ones were not: features of up to 27 differ by up to 8e-3.
    assert difference.mean() < 1e-3
    assert difference.max() / expected.abs().max() < 1e-3
    assert (output.landmarks - golden["landmarks"].flatten(0, 1)).abs().max() < 1e-4


def test_mobilefacenet_has_the_published_size():
    assert sum(p.numel() for p in MobileFaceNetLandmarkEncoder().parameters()) == pytest.approx(1.01e6, abs=5e3)


def test_narrow_mobilefacenet(tmp_path):
    narrow = MobileFaceNetLandmarkEncoder(width=0.25)
    output = narrow(random_frames(2), return_landmarks=True)
    assert narrow.num_channels == 32 and output.features.shape == (2, 32, 14, 14)
    assert sum(p.numel() for p in narrow.parameters()) < 0.12e6
    again = load_landmark_encoder(save_landmark_encoder(narrow, tmp_path), narrow.to_dict())
    assert torch.equal(again(random_frames(2)).features, output.features)
    assert MobileFaceNetLandmarkEncoder().to_dict() == {"type": "mobilefacenet"}
    with pytest.raises(ValueError, match="`width`"):
        MobileFaceNetLandmarkEncoder(width=0.3)


def test_mobilefacenet_of_another_input_size(tmp_path):
    encoder = MobileFaceNetLandmarkEncoder(input_size=64)
    frames = random_frames(2)
    output = encoder(frames, return_landmarks=True)
    assert output.features.shape == (2, 128, encoder.feature_size, encoder.feature_size) == (2, 128, 8, 8)
    assert output.landmarks.shape == (2, 68, 2)
    resized = torch.nn.functional.interpolate(frames, size=(64, 64), mode="bilinear", align_corners=True)
    assert torch.equal(encoder(resized).features, output.features)
    again = load_landmark_encoder(save_landmark_encoder(encoder, tmp_path), encoder.to_dict())
    assert torch.equal(again(frames).features, output.features)
    with pytest.raises(ValueError, match="`input_size`"):
        MobileFaceNetLandmarkEncoder(input_size=56)


@pytest.mark.parametrize(
    ("width", "input_size"), [(1.0, 112), (1.0, 32), (0.25, 64), (0.5, 48), (0.125, 112), (1.0, 16)]
)
def test_a_frame_has_the_same_features_alone_and_among_others(width, input_size):
    torch.manual_seed(0)
    encoder = MobileFaceNetLandmarkEncoder(width=width, input_size=input_size)
    frames = random_frames(min(encoder.cpu_batch_size, 48) + 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several share sums as they like
    try:
        together = encoder(frames, return_landmarks=True)
        alone = [encoder(frame[None], return_landmarks=True) for frame in frames]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together.features, torch.cat([output.features for output in alone]))
    # matrix products for the points take a single row by other means
    torch.testing.assert_close(together.landmarks, torch.cat([output.landmarks for output in alone]))


def test_small_networks_take_more_frames_at_a_time(monkeypatch):
    sizes: list[int] = []
    encode = MobileFaceNetLandmarkEncoder._encode

    def count(self, frames, return_landmarks):
        sizes.append(len(frames))
        return encode(self, frames, return_landmarks)

    monkeypatch.setattr(MobileFaceNetLandmarkEncoder, "_encode", count)
    for options, expected in (
        ({}, [4, 2]),
        ({"input_size": 128}, [4, 2]),  # at least as many as ever
        ({"width": 0.5}, [6]),  # of 8
    ):
        sizes.clear()
        MobileFaceNetLandmarkEncoder(**options)(random_frames(6))
        assert sizes == expected
    sizes.clear()
    MobileFaceNetLandmarkEncoder(width=0.25, input_size=64)(random_frames(64))
    assert sizes == [49, 15]
    sizes.clear()
    MobileFaceNetLandmarkEncoder().bfloat16()(random_frames(10))
    assert sizes == [8, 2]


@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize("input_size", [16, 48])
def test_norms_are_a_part_of_the_convolutions(count, input_size):
    torch.manual_seed(0)
    encoder = MobileFaceNetLandmarkEncoder(width=0.25, input_size=input_size)
    for module in encoder.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.bias.normal_(0, 0.1)
    frames = random_frames(count)
    outputs = encoder(frames, return_landmarks=True)

    def plainly(block, x):  # as the layers stand there
        x = block.bn(block.conv(x))
        return x if block.prelu is None else block.prelu(x)

    resized = torch.nn.functional.interpolate(frames, (input_size, input_size), mode="bilinear", align_corners=True)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(ConvBlock, "forward", plainly)
        expected = encoder._encode(resized, return_landmarks=True)
    torch.testing.assert_close(outputs.features, expected.features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs.landmarks, expected.landmarks, atol=1e-4, rtol=1e-4)


# Read off the enlarged picture by eye, in pixels of skimage.data.astronaut(): iBUG index -> (x, y)
READ_BY_EYE = {
    8: (222.9, 178), 17: (190.1, 90.5), 19: (198.8, 88.6), 21: (213.8, 92.8), 22: (238.7, 93.6), 24: (250.9, 92.8),
    26: (263, 96.1), 30: (222.9, 126.9), 33: (225, 133.5), 36: (194, 101.5), 37: (198.4, 98.6), 38: (205.9, 99.8),
    39: (213, 103.5), 40: (207.2, 104.2), 41: (200.9, 104.2), 42: (236.3, 105.2), 43: (243.4, 100.2),
    44: (250.5, 100.2), 45: (258.8, 104), 46: (252.2, 105.8), 47: (245.1, 106.1), 48: (202.7, 139.8),
    51: (223.2, 139.6), 54: (244.6, 141), 57: (223.2, 154.8), 62: (222.9, 144.6), 66: (222.9, 149.4),
}  # fmt: skip


def test_points_on_a_real_face(mobilefacenet, retinaface_weights):
    picture = skimage.data.astronaut()
    from face_alignment.detection.retinaface import FaceDetector

    detector = FaceDetector("cpu", path_to_detector=str(retinaface_weights))
    x0, y0, x1, y1 = detector.detect_from_image(picture)[0][:4]
    side = round(1.2 * min(x1 - x0, y1 - y0))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    processor = S2DImageProcessor(landmark_encoder=mobilefacenet)
    crop = picture[top : top + side, left : left + side]
    landmarks = processor(crop, return_landmarks=True, return_tensors="np")["landmarks"][0] * side + [left, top]
    errors = np.array([np.hypot(*(landmarks[index] - point)) for index, point in READ_BY_EYE.items()])
    # the inter-ocular distance of the 300-W benchmark: between the outer corners of the eyes
    distance = np.hypot(*np.subtract(READ_BY_EYE[45], READ_BY_EYE[36]))
    assert errors.mean() < 0.05 * distance
    assert errors.max() < 0.10 * distance


@pytest.mark.parametrize("name", ["mobilefacenet", "fan"])
def test_encoders_share_an_interface(name, request):
    encoder = request.getfixturevalue(name)
    frames = random_frames(3).requires_grad_()
    output = encoder(frames, return_landmarks=True)
    assert output.features.shape == (3, encoder.num_channels, 14, 14)
    assert output.landmarks.shape == (3, 68, 2)
    assert not output.features.requires_grad and not output.landmarks.requires_grad
    assert encoder(frames).landmarks is None
    assert not encoder.train().training and not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    chunked = encoder(frames, batch_size=2)
    torch.testing.assert_close(chunked.features, output.features, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="must be"):
        encoder(frames[0])


def test_input_decides_the_dtype_of_the_output(mobilefacenet):
    frames = random_frames(2)
    expected = mobilefacenet(frames).features
    half = mobilefacenet(frames.bfloat16())
    assert half.features.dtype == torch.bfloat16
    assert (half.features.float() - expected).abs().max() < 0.05 * expected.abs().max()
    low = build_landmark_encoder({"type": "mobilefacenet"})
    low.load_state_dict(mobilefacenet.state_dict())
    output = low.bfloat16()(frames)
    assert output.features.dtype == torch.float32
    assert (output.features - expected).abs().max() < 0.05 * expected.abs().max()


def test_fan_features_are_what_the_network_computes(fan):
    frames = random_frames(2)
    resized = torch.nn.functional.interpolate(frames, size=(256, 256), mode="bilinear", align_corners=False)
    with torch.no_grad():
        heatmaps = fan.network(resized * STD + MEAN)[-1]
    output = fan(frames, return_landmarks=True)
    torch.testing.assert_close(output.landmarks, heatmap_peaks(heatmaps))
    # the hidden features, before they are averaged, give the heatmaps through the last layer
    last, pooled = fan.network.l1, torch.nn.functional.adaptive_avg_pool2d(heatmaps, 14)
    with torch.no_grad():
        torch.testing.assert_close(last(output.features), pooled, atol=1e-4, rtol=1e-4)
    by_heatmap = FANLandmarkEncoder(num_modules=2, features="heatmaps")
    by_heatmap.load_state_dict(fan.state_dict())
    torch.testing.assert_close(by_heatmap(frames).features, pooled, atol=1e-4, rtol=1e-4)


def test_heatmap_peaks_agree_with_face_alignment():
    heatmaps = torch.randn(3, 68, 64, 64, generator=torch.Generator().manual_seed(2))
    heatmaps[0, 0] = torch.arange(64.0)  # a maximum on the border
    theirs, _, _ = face_alignment.utils.get_preds_fromhm(heatmaps.numpy())
    np.testing.assert_allclose(heatmap_peaks(heatmaps).numpy() * 64, theirs, atol=1e-4)


@pytest.mark.parametrize("name", ["mobilefacenet", "fan"])
def test_save_and_load(name, request, tmp_path):
    encoder = request.getfixturevalue(name)
    path = save_landmark_encoder(encoder, tmp_path)
    again = load_landmark_encoder(path, encoder.to_dict())
    frames = random_frames(1)
    assert torch.equal(again(frames).features, encoder(frames).features)


def test_weights_that_do_not_fit_are_named(mobilefacenet, fan, tmp_path):
    path = save_landmark_encoder(mobilefacenet, tmp_path)
    with pytest.raises(ValueError, match=r"landmark_encoder\.safetensors does not hold the weights of .*'fan'"):
        load_landmark_encoder(path, fan.to_dict())
    path.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_landmark_encoder(path, mobilefacenet.to_dict())
    with pytest.raises(ValueError, match="Unknown landmark encoder 'dlib'"):
        build_landmark_encoder({"type": "dlib"})
    with pytest.raises(ValueError, match="hidden"):
        FANLandmarkEncoder(features="all")


def test_face_alignment_is_imported_only_for_fan(warm_python):
    code = "import sys, s2d_hf; s2d_hf.MobileFaceNetLandmarkEncoder(); sys.exit('face_alignment' in sys.modules)"
    assert warm_python.run("-c", code).returncode == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_no_numbers_are_not_loaded(tmp_path, value):
    S2DImageProcessor(landmark_encoder=MobileFaceNetLandmarkEncoder(width=0.125)).save_pretrained(tmp_path)
    path = tmp_path / "landmark_encoder.safetensors"
    weights = load_file(path)
    weights["conv1.conv.weight"] = weights["conv1.conv.weight"].double()
    weights["conv1.conv.weight"].view(-1)[3] = value
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"landmark_encoder\.safetensors holds values that are no numbers.*: conv1"):
        S2DImageProcessor.from_pretrained(tmp_path)


def test_an_encoder_that_is_no_numbers_is_not_saved(tmp_path):
    encoder = MobileFaceNetLandmarkEncoder(width=0.125)
    with torch.no_grad():
        encoder.conv1.conv.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"is not saved: it is NaN or infinite in conv1\.conv\.weight"):
        S2DImageProcessor(landmark_encoder=encoder).save_pretrained(tmp_path)
    assert not (tmp_path / "landmark_encoder.safetensors").exists()
