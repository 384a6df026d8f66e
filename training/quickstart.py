"""
Converts a small checkpoint, makes a video of a real face and classifies it with `pipeline`.

The checkpoint has the form of the paper's authors' and random weights, so the scores mean nothing yet; pass
`--checkpoint` and `--landmark-weights` to use published ones.
"""

import argparse
from pathlib import Path

import av
import numpy as np
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import pipeline

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DConfig, S2DForVideoClassification
from s2d_hf.conversion import convert_checkpoint, export_state_dict
from s2d_hf.labels import find_labels


def write_face_video(path: Path, num_frames: int = 48, fps: int = 24, size: int = 224) -> None:
    """A camera that pans and zooms over the face of scikit-image's astronaut, as H.264."""
    picture = Image.fromarray(skimage.data.astronaut())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for i in range(num_frames):
            phase = i / (num_frames - 1)
            side = 170 - 40 * phase  # zooms in
            x, y = 216 + 16 * np.cos(2 * np.pi * phase), 112 + 8 * np.sin(2 * np.pi * phase)
            box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            frame = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def write_random_checkpoints(checkpoint: Path, landmark_weights: Path) -> None:
    """A small video model under the authors' names, and a landmark detector, both with random weights."""
    torch.manual_seed(0)
    config = S2DConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, num_labels=7
    )
    model = S2DForVideoClassification(config)
    torch.save({"model": export_state_dict(model.state_dict())}, checkpoint)
    save_file(MobileFaceNetLandmarkEncoder().state_dict(), landmark_weights)


def main() -> None:
    """Runs the example; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of the paper's authors")
    parser.add_argument("--landmark-weights", type=Path, help="the MobileFaceNet landmark detector that goes with it")
    parser.add_argument("--dataset", default="DFEW", help="the data set of the checkpoint (default: DFEW)")
    parser.add_argument("--output", type=Path, default=Path("outputs/quickstart"), help="folder for what is written")
    arguments = parser.parse_args()
    if (arguments.checkpoint is None) != (arguments.landmark_weights is None):
        parser.error("--checkpoint and --landmark-weights belong together")
    arguments.output.mkdir(parents=True, exist_ok=True)

    checkpoint, landmark_weights = arguments.checkpoint, arguments.landmark_weights
    if checkpoint is None:
        checkpoint, landmark_weights = arguments.output / "official.pth", arguments.output / "landmarks.safetensors"
        write_random_checkpoints(checkpoint, landmark_weights)
    model = arguments.output / "model"
    labels = find_labels(arguments.dataset)
    print(convert_checkpoint(checkpoint, model, landmark_weights, labels=labels, overwrite=True))

    video = arguments.output / "face.mp4"
    write_face_video(video)
    classifier = pipeline("video-classification", model=str(model))
    print(f"\nScores of {video}:")
    for entry in classifier(str(video), top_k=len(labels)):
        print(f"  {entry['label']:10} {entry['score']:.3f}")
    if arguments.checkpoint is None:
        print("The weights are random: these scores show that everything runs, and nothing else.")


if __name__ == "__main__":
    main()
