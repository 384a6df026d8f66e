"""
Draws the pictures of README.

    python docs/draw_pictures.py data_flow
    python training/train.py --static.num_train_epochs 12 --dynamic.num_train_epochs 10
    python docs/draw_pictures.py overview --model outputs/synthetic/dynamic [--face-detector-weights FILE]

The overview is what `S2DTimeline` makes of a video of drawn people, with a model that was trained on drawn faces;
nothing in it is touched up. No real faces, and no result on real faces.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from s2d_hf import S2DTimeline
from s2d_hf.timeline import VideoTimeline

sys.path.append(str(Path(__file__).resolve().parents[1] / "training"))
from synthetic.clips import SyntheticFaces
from synthetic.face_drawing import draw_face
from synthetic.face_shape import FaceIdentity, FacePose, Scene

PICTURES = Path(__file__).resolve().parent / "pictures"


@dataclass(frozen=True)
class Acted:
    """An expression from when it begins to rise to when it has faded, in seconds."""

    label: str
    start: float
    end: float
    rise: float = 0.45

    def intensity(self, time: float) -> float:
        """From 0 to 1."""
        steps = np.clip([(time - self.start) / self.rise, (self.end - time) / self.rise], 0, 1)
        return float((steps * steps * (3 - 2 * steps)).min())


@dataclass(frozen=True)
class Actor:
    """
    A drawn person in a video.

    Args:
        face (`FaceIdentity`): Who.
        peaks (`dict[str, np.ndarray]`): The parameters of each expression where it is strongest.
        scene (`Scene`): Light and background.
        acts (`Sequence[Acted]`): What happens.
        phase (`float`): Of the head's movement.
    """

    face: FaceIdentity
    peaks: dict[str, np.ndarray]
    scene: Scene
    acts: Sequence[Acted]
    phase: float

    def draw(self, time: float, size: int) -> np.ndarray:
        """The person at a time in seconds, uint8 RGB `(size, size, 3)`."""
        expression = sum((act.intensity(time) * self.peaks[act.label] for act in self.acts), np.zeros(12))
        turn = np.sin(2 * np.pi * (time / 5.3 + self.phase))
        pose = FacePose(yaw=0.12 * turn, roll=0.04 * np.cos(2 * np.pi * (time / 4.1 + self.phase)), scale=0.8)
        blink = float(np.exp(-((((time + 7 * self.phase) % 3.1 - 1.5) / 0.07) ** 2)))
        return draw_face(self.face, expression, pose, self.scene, blink, (0.4 * turn, 0.0), size)[0]


def cast() -> list[Actor]:
    """
    Two people whom the model has not been trained on (the recipe trains on the first 160 of this seed), of those whom
    it reads well; it doesn't read everyone so.
    """
    faces = SyntheticFaces(seed=0, num_frames=8, ambiguous=0.0, occlusion=0.0)
    acts = (
        [Acted("angry", 2.8, 6.2), Acted("happy", 8.4, 10.8), Acted("surprise", 12.6, 14.2)],
        [Acted("happy", 2.6, 4.8), Acted("surprise", 7.0, 8.8), Acted("sad", 11.0, 14.4)],
    )
    backgrounds = (((176, 190, 204), (128, 146, 166)), ((206, 192, 170), (168, 150, 128)))
    actors = []
    for number, (identity, acted) in enumerate(zip((173, 168), acts, strict=True)):
        peaks = {act.label: faces.script(identity, act.label, 0).expressions[-1] for act in acted}
        ends = backgrounds[number]
        scene = Scene(light_strength=0.45, background=ends[0], background_end=ends[1], background_angle=1.2)
        actors.append(Actor(faces.identity(identity), peaks, scene, acted, phase=0.37 * number))
    return actors


def draw_meeting(path: Path, seconds: float = 16.0, fps: int = 24, size: int = 340) -> Path:
    """A video call of the cast, 1280x400 pixels."""
    actors = cast()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = 1280, 400, "yuv420p"
        for number in range(round(seconds * fps)):
            frame = np.full((400, 1280, 3), (38, 42, 50), np.uint8)
            for actor, left in zip(actors, (60, 680), strict=True):
                frame[36 : 36 + size, left : left + size] = actor.draw(number / fps, size)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_frame(path: Path, time: float) -> np.ndarray:
    """The first frame of a video at `time` seconds or later, RGB."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time >= time:
                return frame.to_ndarray(format="rgb24")
    raise ValueError(f"{path} has no frame at {time} seconds.")


def draw_overview(model: str, weights: str | None, time: float, path: Path) -> VideoTimeline:
    """Analyses the meeting, and puts an annotated frame above the plot of its timeline."""
    with tempfile.TemporaryDirectory() as folder:
        video = draw_meeting(Path(folder, "meeting.mp4"))
        analyse = S2DTimeline.from_pretrained(model, face_detector_weights=weights, window_stride=2)
        timeline = analyse(video, progress=False)
        frame = read_frame(timeline.annotate(Path(folder, "annotated.mp4"), progress=False), time)
        timeline.source = video.name  # the plot's title
        figure = timeline.plot()
        figure.canvas.draw()
        plot = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    width = plot.shape[1]
    frame = cv2.resize(frame, (width, round(frame.shape[0] * width / frame.shape[1])), interpolation=cv2.INTER_CUBIC)
    picture = Image.fromarray(np.vstack([frame, plot]))
    # few colours, so that the page loads fast
    picture.quantize(192, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    return timeline


INK, SOFT, LINE = "#1F2328", "#57606A", "#8C959F"
APPEARANCE, LANDMARKS, TEMPORAL, PLAIN, TUNED = "#DDEBFA", "#DDF3E4", "#FBE6D0", "#FFFFFF", "#B35900"


class Drawing:
    """Boxes and arrows on a light card, which reads on light and dark pages alike. Units: 1/75 inch, y downwards."""

    def __init__(self, width: float, height: float):
        self.figure = Figure(figsize=(width / 75, height / 75))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")
        self.box(1, 1, width - 2, height - 2, face="#F6F8FA", edge="#D0D7DE", rounding=14)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        title: str = "",
        text: str = "",
        face: str = PLAIN,
        edge: str = LINE,
        rounding: float = 7,
        dashed: bool = False,
    ) -> None:
        """A box with a bold title, and text below it."""
        style = f"round,pad=0,rounding_size={rounding}"
        line = (0, (4, 3)) if dashed else "solid"
        self.axes.add_patch(
            FancyBboxPatch((x, y), width, height, style, facecolor=face, edgecolor=edge, linewidth=1.1, linestyle=line)
        )
        middle = (x + width / 2, y + height / 2)
        if not text:
            self.text(*middle, title, bold=True, va="center_baseline")
            return
        # the two together in the middle
        lines = text.count("\n") + 1
        top = middle[1] - (19 + 15.5 * lines) / 2
        self.text(middle[0], top, title, bold=True, va="top")
        self.text(middle[0], top + 20, text, size=9.5, colour=SOFT, va="top")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 11,
        colour: str = INK,
        bold: bool = False,
        ha: str = "center",
        va: str = "center",
    ) -> None:
        """Text, of one or more lines."""
        weight = "bold" if bold else "normal"
        self.axes.text(x, y, text, fontsize=size, color=colour, weight=weight, ha=ha, va=va, linespacing=1.3)

    def arrow(self, *points: tuple[float, float], colour: str = INK, both: bool = False) -> None:
        """A line through points, with a head at its end, or at both ends."""
        for start, end in pairwise(points[:-1]):
            self.axes.plot(*zip(start, end, strict=True), color=colour, linewidth=1.3, solid_capstyle="round")
        style = "<|-|>" if both else "-|>"
        self.axes.add_patch(
            FancyArrowPatch(
                points[-2], points[-1], arrowstyle=f"{style},head_length=4.5,head_width=2.4", color=colour,
                linewidth=1.3, shrinkA=0, shrinkB=0, mutation_scale=1.15,
            )
        )  # fmt: skip


def draw_data_flow(path: Path) -> None:
    """Files to scores, and how the model is trained."""
    drawing = Drawing(1000, 736)
    _draw_inputs(drawing)
    _draw_model(drawing)
    _draw_training(drawing)
    # the same file each time
    matplotlib.rcParams["svg.hashsalt"] = "s2d_hf"
    drawing.figure.savefig(path, transparent=True, metadata={"Date": None})


def _draw_inputs(drawing: Drawing) -> None:
    drawing.text(24, 28, "From a video to scores", size=13, bold=True, ha="left")
    drawing.box(24, 64, 168, 112, "Video", "file, URL, camera,\nfolder of frames,\narray")
    drawing.box(
        226, 64, 200, 112, "Faces", "of raw video only:\nfound, followed through\nthe frames, cut out", dashed=True
    )
    drawing.box(460, 64, 162, 112, "Frames", "16 of a clip,\nresized, cropped")
    drawing.box(656, 48, 320, 144, face="#EEF1F4", edge="#D0D7DE")
    drawing.text(816, 36, "processor", size=9.5, colour=SOFT)
    drawing.box(670, 58, 292, 56, "Pixels", "normalised, 16 × 3 × 224 × 224", face=APPEARANCE)
    drawing.box(670, 126, 292, 56, "Landmark encoder", "68 points; features 16 × 128 × 14 × 14", face=LANDMARKS)
    drawing.arrow((192, 120), (226, 120))
    drawing.arrow((426, 120), (460, 120))
    drawing.arrow((622, 120), (646, 120), (646, 86), (670, 86))
    drawing.arrow((646, 120), (646, 154), (670, 154))
    drawing.arrow((816, 192), (816, 212), (92, 212), (92, 236))


def _draw_model(drawing: Drawing) -> None:
    lane, above, below = 354, 282, 426
    drawing.box(24, 236, 952, 250, face="#FFFFFF", edge="#D0D7DE", rounding=10)
    drawing.text(40, 256, "model", size=9.5, colour=SOFT, ha="left")
    drawing.box(40, lane - 26, 104, 52, "Patches", "as tokens", face=APPEARANCE)
    drawing.box(40, below - 26, 104, 52, "Landmarks", "as tokens", face=LANDMARKS)
    places = ((200, "1", "ViT block 1"), (388, "2", "ViT block 2"), (612, "12", "ViT block 12"))
    for x, number, name in places:
        drawing.box(x - 36, above - 22, 72, 38, f"TMA {number}", face=TEMPORAL)
        drawing.box(x - 36, below - 19, 72, 38, f"MCP {number}", face=LANDMARKS)
        drawing.axes.add_patch(Circle((x, lane), 12, facecolor="#FFFFFF", edgecolor=INK, linewidth=1.2))
        drawing.text(x, lane, "+", size=13, va="center_baseline")
        drawing.arrow((x, lane - 12), (x, above + 16), both=True)
        drawing.arrow((x, lane + 12), (x, below - 19), both=True)
        drawing.arrow((x + 12, lane), (x + 40, lane))
        drawing.box(x + 40, lane - 22, 100, 44, name, face=APPEARANCE)
    drawing.arrow((144, lane), (188, lane))
    drawing.arrow((340, lane), (376, lane))
    drawing.arrow((528, lane), (600, lane))
    drawing.arrow((144, below), (164, below), colour="#2E7D4F")
    drawing.arrow((236, below), (352, below), colour="#2E7D4F")
    drawing.arrow((424, below), (576, below), colour="#2E7D4F")
    drawing.text(294, below + 13, "prompt", size=9.5, colour="#2E7D4F")
    for y in (lane, below):
        drawing.axes.add_patch(Rectangle((538, y - 8), 26, 16, facecolor="#FFFFFF", linewidth=0))
        drawing.text(551, y - 2, "· · ·", size=11)
    drawing.arrow((752, lane), (776, lane))
    drawing.box(776, lane - 36, 84, 72, "Mean", "of the frames'\nclass tokens")
    drawing.arrow((860, lane), (882, lane))
    drawing.box(882, lane - 36, 82, 72, "Scores", "linear layer,\nsoftmax")
    drawing.text(
        500,
        469,
        "Before each block, tokens += TMA(tokens) + MCP(tokens, prompt).  TMA: attention over the frames at each "
        "place.  MCP: tokens and landmarks to a prompt.",
        size=9,
        colour=SOFT,
    )  # fmt: skip


def _draw_training(drawing: Drawing) -> None:
    drawing.text(24, 518, "How it is trained: from static to dynamic", size=13, bold=True, ha="left")
    drawing.box(24, 544, 150, 76, "ViT", "masked autoencoder,\npretrained", face=APPEARANCE)
    drawing.box(226, 544, 230, 76, "1  Image model", "ViT and MCPs,\ntrained on labelled stills")
    drawing.box(
        560,
        544,
        250,
        76,
        "2  Video model",
        "ViT blocks frozen; TMAs, MCPs, norms\nand classifier tuned on labelled clips",
    )
    drawing.box(
        560,
        648,
        250,
        66,
        "Emotion anchors",
        "reference clips' features and scores:\nsoft targets beside the labels",
        face=TEMPORAL,
    )
    drawing.box(226, 648, 230, 66, "Landmark encoder", "frozen in both stages", face=LANDMARKS)
    drawing.arrow((174, 582), (226, 582))
    drawing.arrow((456, 582), (560, 582))
    drawing.text(508, 568, "all weights", size=9.5, colour=SOFT)
    drawing.text(508, 596, "+ TMAs", size=9.5, colour=TUNED)
    drawing.arrow((685, 648), (685, 620), both=True)
    drawing.arrow((341, 648), (341, 620))
    drawing.box(858, 544, 118, 76, "Model folder", "for pipeline")
    drawing.arrow((810, 582), (858, 582))


def main() -> None:
    """Draws what is asked for; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="picture", required=True)
    commands.add_parser("data_flow", help="the drawing of the data flow")
    overview = commands.add_parser("overview", help="an annotated frame and a timeline")
    overview.add_argument("--model", required=True, metavar="FOLDER", help="what training/train.py trained")
    overview.add_argument("--face-detector-weights", metavar="FILE", help="default: downloaded once")
    overview.add_argument("--time", type=float, default=3.8, help="of the frame, in seconds (default: %(default)s)")
    arguments = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    if arguments.picture == "data_flow":
        draw_data_flow(PICTURES / "data_flow.svg")
        return
    timeline = draw_overview(
        arguments.model, arguments.face_detector_weights, arguments.time, PICTURES / "overview.png"
    )
    for face in timeline.tracks:
        for segment in face.segments:
            print(f"face {face.track}: {segment.label} from {segment.start:.1f} to {segment.end:.1f} s")


if __name__ == "__main__":
    main()
