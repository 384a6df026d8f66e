"""Clips of drawn, talking faces with their 68 points: no real faces."""

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from .face_drawing import draw_face
from .face_shape import (
    BEARDS,
    EXPRESSION_PARAMETERS,
    GLASSES,
    HAIR_STYLES,
    OCCLUDERS,
    FaceIdentity,
    FacePose,
    Scene,
    project,
    shape_points,
)

SYNTHETIC_LABELS = ("neutral", "happy", "happy_fading", "surprise", "surprise_fading", "angry", "sad")

_FADING = "_fading"
EXPRESSIONS = ("neutral", "happy", "surprise", "angry", "sad")
_PEAKS = {
    "neutral": {},
    "happy": {
        "mouth_corner": 1.0,
        "mouth_width": 0.7,
        "mouth_open": 0.2,
        "lip_raise": 0.8,
        "cheek_raise": 1.0,
        "lid_raise": 0.7,
    },
    "surprise": {"brow_raise": 1.0, "lid_open": 1.0, "mouth_open": 0.75, "mouth_width": -0.7},
    "angry": {
        "brow_raise": -0.6,
        "brow_slant": -1.0,
        "brow_pinch": 1.0,
        "lid_open": -0.25,
        "lid_raise": 0.4,
        "lip_press": 0.9,
        "mouth_corner": -0.3,
        "mouth_width": -0.2,
        "nose_wrinkle": 0.6,
    },
    "sad": {
        "brow_slant": 1.0,
        "brow_pinch": 0.3,
        "lid_open": -0.55,
        "mouth_corner": -0.85,
        "mouth_width": -0.15,
        "lip_press": 0.2,
    },
}
# with which other expression an ambiguous clip is mixed
_NEIGHBOURS = {"happy": "surprise", "surprise": "happy", "angry": "sad", "sad": "angry"}
_SKINS = ((247, 214, 190), (232, 186, 155), (214, 160, 124), (176, 120, 86), (128, 82, 58), (92, 58, 42))
_HAIRS = ((24, 20, 20), (58, 38, 26), (104, 66, 38), (168, 126, 72), (214, 180, 120), (142, 62, 30), (140, 138, 136))
_IRISES = ((66, 42, 26), (104, 74, 40), (92, 118, 74), (84, 128, 170), (110, 120, 126))
_MARGIN = 0.015  # of the frame, within which no point lies
_IDENTITY_STREAM, _CLIP_STREAM, STILL_STREAM = range(3)


def label_expression(label: str) -> tuple[str, bool]:
    """
    The expression that a label shows, and whether the label plays it backwards.

    Raises:
        ValueError: if `label` is not one of `SYNTHETIC_LABELS`.
    """
    if label not in SYNTHETIC_LABELS:
        raise ValueError(f"`label` must be one of {', '.join(SYNTHETIC_LABELS)}, got {label!r}.")
    return label.removesuffix(_FADING), label.endswith(_FADING)


@dataclass(frozen=True)
class ClipScript:
    """
    What happens in a clip of `T` frames.

    Attributes:
        expressions (`np.ndarray` of shape `(T, len(EXPRESSION_PARAMETERS))`): What is drawn, talking included.
        intensities (`np.ndarray` of shape `(T,)`): How far the expression has unfolded, from 0 to about 1.
        talking (`np.ndarray` of shape `(T,)`): How far talking opens the mouth.
        blinks (`np.ndarray` of shape `(T,)`): From 0 to 1, eyes shut.
        gazes (`np.ndarray` of shape `(T, 2)`): Right and down, from -1 to 1.
        poses (`tuple[FacePose, ...]`): Of each frame.
        noise_seeds (`np.ndarray` of shape `(T,)`): Of each frame's sensor noise.
        scene (`Scene`): Light, background and occlusion of all frames.
        blur (`float`): Standard deviation, as a fraction of the frame.
        noise (`float`): Standard deviation of the sensor noise in grey levels from 0 to 255.
        ambiguous (`bool`): Whether the expression is weak or mixed with another one.
    """

    expressions: np.ndarray
    intensities: np.ndarray
    talking: np.ndarray
    blinks: np.ndarray
    gazes: np.ndarray
    poses: tuple[FacePose, ...]
    noise_seeds: np.ndarray
    scene: Scene
    blur: float
    noise: float
    ambiguous: bool

    def __len__(self) -> int:
        return len(self.poses)

    def reversed(self) -> "ClipScript":
        """The same frames in the opposite order."""
        tracks = {field.name: getattr(self, field.name) for field in fields(self)}
        backwards = {name: t[::-1] for name, t in tracks.items() if isinstance(t, np.ndarray | tuple)}
        return replace(self, **backwards)


class SyntheticFaces:
    """
    Talking cartoon faces whose expression unfolds over a clip, with exact landmarks.

    **The faces are drawn, not recorded: what a model scores on them says nothing about real faces.** They serve to
    try training and tests where no footage is at hand.

    "happy" and "surprise" rise from a neutral face; "happy_fading" and "surprise_fading" are clips of the same kind
    played backwards, so that only the order of their frames tells them from the rising ones. The same identity and
    index give a rising clip and its exact mirror image in time. Faces differ by proportions, colours, hair, beard and
    glasses; clips by light, drifting pose, talking, blinks, occlusion, blur, noise and background.

    Args:
        seed (`int`): Every face and clip follows from it and the arguments of the call, whatever was drawn before.
        image_size (`int`): Height and width of a frame in pixels.
        num_frames (`int`): Frames of a clip, evenly spaced over its time.
        ambiguous (`float`): Share of the clips whose expression is weak, or mixed with a second, weaker one ("angry"
            with "sad", "happy" with "surprise"); in a neutral clip another expression shows faintly.
        occlusion (`float`): Share of the clips in which a hand, a strand of hair or a mask covers part of the face.

    Raises:
        ValueError: if an argument is out of range.

    Example:
    ```python
    >>> frames, points = SyntheticFaces(seed=0).clip(identity=3, label="happy", index=0)
    >>> frames.shape, points.shape
    ((16, 112, 112, 3), (16, 68, 2))
    ```
    """

    def __init__(
        self,
        seed: int,
        image_size: int = 112,
        num_frames: int = 16,
        ambiguous: float = 0.15,
        occlusion: float = 0.2,
    ):
        check_at_least("seed", seed, 0)
        check_at_least("image_size", image_size, 32)
        check_at_least("num_frames", num_frames, 1)
        for name, share in (("ambiguous", ambiguous), ("occlusion", occlusion)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` is a share of the clips, from 0 to 1; got {share}.")
        self.seed = seed
        self.image_size = image_size
        self.num_frames = num_frames
        self.ambiguous = ambiguous
        self.occlusion = occlusion

    def identity(self, identity: int) -> FaceIdentity:
        """
        The face of a person.

        Args:
            identity (`int`): The person's number, 0 or more.

        Raises:
            ValueError: if it is negative.
        """
        check_at_least("identity", identity, 0)
        return _draw_identity(generator(self.seed, _IDENTITY_STREAM, identity))

    def script(self, identity: int, label: str, index: int) -> ClipScript:
        """
        What happens in the clip that [`clip`] draws.

        Args:
            identity (`int`): The person's number, 0 or more.
            label (`str`): One of `SYNTHETIC_LABELS`.
            index (`int`): Which of the person's clips of this label, 0 or more.

        Raises:
            ValueError: if an argument is out of range.
        """
        expression, fading = label_expression(label)
        check_at_least("index", index, 0)
        face = self.identity(identity)
        rng = generator(self.seed, _CLIP_STREAM, identity, EXPRESSIONS.index(expression), index)
        script = _write_script(rng, face, expression, self)
        return script.reversed() if fading else script

    def clip(self, identity: int, label: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Draws a clip.

        Args:
            identity (`int`): The person's number, 0 or more.
            label (`str`): One of `SYNTHETIC_LABELS`.
            index (`int`): Which of the person's clips of this label, 0 or more.

        Returns:
            `np.ndarray` of shape `(num_frames, image_size, image_size, 3)`, uint8 RGB, and `np.ndarray` of shape
            `(num_frames, 68, 2)`, float32: the points in iBUG order, (x, y) as fractions of the frame.

        Raises:
            ValueError: if an argument is out of range.
        """
        return self.draw(identity, self.script(identity, label, index))

    def draw(self, identity: int, script: ClipScript) -> tuple[np.ndarray, np.ndarray]:
        face = self.identity(identity)
        drawn = [self._draw_frame(face, script, time) for time in range(len(script))]
        return np.stack([frame for frame, _ in drawn]), np.stack([points for _, points in drawn])

    def _draw_frame(self, face: FaceIdentity, script: ClipScript, time: int) -> tuple[np.ndarray, np.ndarray]:
        image, points = draw_face(
            face,
            script.expressions[time],
            script.poses[time],
            script.scene,
            blink=float(script.blinks[time]),
            gaze=(float(script.gazes[time, 0]), float(script.gazes[time, 1])),
            image_size=self.image_size,
        )
        if script.blur * self.image_size > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), script.blur * self.image_size)
        noise = np.random.default_rng(int(script.noise_seeds[time])).standard_normal(image.shape, dtype=np.float32)
        noise *= np.float32(script.noise)
        return cv2.add(image, noise, dtype=cv2.CV_8U), points


def generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def check_at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}.")


def _draw_identity(rng: np.random.Generator) -> FaceIdentity:
    def factor(spread: float) -> float:
        return float(1 + spread * np.clip(rng.standard_normal(), -2, 2))

    def between(colours: tuple[tuple[int, ...], ...], jitter: float) -> tuple[float, float, float]:
        first, second = rng.choice(len(colours), 2, replace=False)
        mixed = np.array(colours[first]) + rng.uniform(0, 0.35) * (np.array(colours[second]) - colours[first])
        return tuple(np.clip(mixed + rng.normal(0, jitter, 3), 5, 250).tolist())

    skin = between(_SKINS, 3)
    # a lipstick, or the skin's own tone made redder
    red = np.array([190, 40, 60]) if rng.random() < 0.2 else np.array([176, 62, 66])
    lips = np.array(skin) * [0.9, 0.62, 0.62] * 0.6 + red * rng.uniform(0.34, 0.46)
    bearded = rng.random() < 0.28
    style = str(rng.choice(HAIR_STYLES, p=[0.08, 0.22, 0.16, 0.2, 0.2, 0.14]))
    return FaceIdentity(
        face_width=factor(0.03),
        face_length=factor(0.04),
        jaw_width=factor(0.045),
        chin_width=factor(0.06),
        eye_size=factor(0.06),
        eye_spacing=factor(0.03),
        eye_tilt=float(rng.normal(0.03, 0.05)),
        brow_height=factor(0.04),
        brow_arch=factor(0.3),
        brow_thickness=factor(0.25),
        nose_length=factor(0.06),
        nose_width=factor(0.1),
        mouth_width=factor(0.06),
        mouth_height=factor(0.02),
        lip_fullness=factor(0.18),
        brow_rest=float(rng.normal(0, 0.1)),
        mouth_rest=float(rng.normal(0, 0.08)),
        wrinkles=float(rng.uniform(0.5, 1.2)),
        lashes=float(rng.uniform(0.7, 1.4)),
        hair_style=style,
        hair_height=factor(0.04),
        beard=str(rng.choice(BEARDS[1:])) if bearded and style != "long" else "none",
        glasses=str(rng.choice(GLASSES[1:])) if rng.random() < 0.22 else "none",
        skin=skin,
        hair=between(_HAIRS, 6),
        iris=between(_IRISES, 6),
        lips=tuple(np.clip(lips, 20, 240).tolist()),
        clothes=tuple(rng.uniform(25, 220, 3).tolist()),
        glasses_colour=tuple((rng.uniform(15, 90) + rng.uniform(-10, 30, 3) * rng.integers(0, 2)).tolist()),
    )


def _write_script(
    rng: np.random.Generator, face: FaceIdentity, expression: str, settings: SyntheticFaces
) -> ClipScript:
    """The clip forwards in time: the expression rises."""
    count = settings.num_frames
    times = (np.arange(count) + 0.5) / count
    ambiguous = bool(rng.random() < settings.ambiguous)
    peak = _draw_peak(rng, expression, ambiguous)
    onset, duration = rng.uniform(0.04, 0.4), rng.uniform(0.2, 0.5)
    intensities = _smooth_step((times - onset) / duration)

    talking, rounding = _talk(rng, times)
    # an open mouth leaves less to the talking
    opening = np.clip(1 - 1.2 * max(0.0, float(peak[_index("mouth_open")])) * intensities, 0.1, 1)
    talking = talking * opening
    expressions = intensities[:, None] * peak
    expressions[:, _index("mouth_open")] += talking
    expressions[:, _index("mouth_width")] += talking * rounding
    expressions[:, _index("brow_raise")] += _drift(rng, times, 0.05) + 0.15 * talking
    expressions[:, _index("brow_slant")] += _drift(rng, times, 0.03)
    expressions[:, _index("mouth_corner")] += _drift(rng, times, 0.03)

    shut = np.zeros(count)
    for blink_time in rng.uniform(-0.3, 1.3, rng.integers(0, 4)):
        shut = np.maximum(shut, np.exp(-(((times - blink_time) / 0.04) ** 2)))
    gazes = np.stack([rng.normal(0, 0.3) + _drift(rng, times, 0.35), _drift(rng, times, 0.25)], axis=1)
    poses = _draw_poses(rng, times)
    scene = _draw_scene(rng, face, settings.occlusion)
    script = ClipScript(
        expressions=expressions,
        intensities=intensities,
        talking=talking,
        blinks=shut,
        gazes=np.clip(gazes, -1, 1),
        poses=poses,
        noise_seeds=rng.integers(0, 2**63, count),
        scene=scene,
        blur=float(rng.uniform(0.003, 0.009)) if rng.random() < 0.4 else 0.0,
        noise=float(rng.uniform(1, 6)),
        ambiguous=ambiguous,
    )
    return replace(script, poses=_keep_in_frame(script, face))


def _index(parameter: str) -> int:
    return EXPRESSION_PARAMETERS.index(parameter)


def _peak(expression: str) -> np.ndarray:
    return np.array([_PEAKS[expression].get(name, 0.0) for name in EXPRESSION_PARAMETERS])


def _draw_peak(rng: np.random.Generator, expression: str, ambiguous: bool) -> np.ndarray:
    """The expression's parameters where it is strongest."""
    strength, mixed, other = rng.uniform(0.7, 1.1), rng.random() < 0.5, rng.choice(EXPRESSIONS[1:])
    variation = rng.normal(1, 0.12, len(EXPRESSION_PARAMETERS))  # nobody smiles twice in the same way
    if expression == "neutral":
        return _peak(str(other)) * variation * (0.3 * strength if ambiguous else 0.0)
    if not ambiguous:
        return strength * variation * _peak(expression)
    if mixed:
        share = rng.uniform(0.55, 0.7)
        return variation * (share * _peak(expression) + (1 - share) * _peak(_NEIGHBOURS[expression]))
    return rng.uniform(0.3, 0.45) * variation * _peak(expression)


def _smooth_step(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _drift(rng: np.random.Generator, times: np.ndarray, spread: float) -> np.ndarray:
    """A slow, irregular wander around 0, `(T,)`, with a standard deviation of about `spread` over clips."""
    frequency, phase = rng.uniform([0.2, 0.6, 1.2], [0.6, 1.2, 2.4]), rng.uniform(0, 2 * np.pi, 3)
    weight = rng.normal(0, 1, 3) * np.array([1.0, 0.7, 0.4]) * spread
    return np.sin(2 * np.pi * frequency * times[:, None] + phase) @ weight


def _talk(rng: np.random.Generator, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far speech opens the mouth, and whether it widens or rounds it, both `(T,)`; silent in a third of clips."""
    silent, start, length = rng.random() < 0.35, rng.uniform(-0.3, 0.5), rng.uniform(0.4, 1.2)
    pulse_times = start + np.cumsum(rng.uniform(0.06, 0.2, 24))
    widths, heights = rng.uniform(0.025, 0.055, 24), rng.uniform(0.08, 0.42, 24)
    heights = np.where(silent | (pulse_times > start + length), 0, heights)
    pulses = heights * np.exp(-(((times[:, None] - pulse_times) / widths) ** 2))
    return pulses.max(axis=1), _drift(rng, times, 1.0)


def _draw_poses(rng: np.random.Generator, times: np.ndarray) -> tuple[FacePose, ...]:
    def track(spread: float, drift: float) -> np.ndarray:
        return np.clip(rng.normal(0, spread), -2 * spread, 2 * spread) + _drift(rng, times, drift)

    yaw, pitch, roll = track(0.13, 0.07), track(0.07, 0.04), track(0.06, 0.03)
    x, y, scale = track(0.015, 0.008), track(0.012, 0.006), 1 + track(0.035, 0.012)
    tracks = zip(yaw.tolist(), pitch.tolist(), roll.tolist(), x.tolist(), y.tolist(), scale.tolist(), strict=True)
    return tuple(
        FacePose(float(np.clip(a, -0.45, 0.45)), float(np.clip(b, -0.25, 0.25)), c, (dx, dy), zoom)
        for a, b, c, dx, dy, zoom in tracks
    )


def _draw_scene(rng: np.random.Generator, face: FaceIdentity, occlusion: float) -> Scene:
    side = int(rng.choice([-1, 1]))
    occluder = str(rng.choice(OCCLUDERS[1:], p=[0.45, 0.35, 0.2]))
    skin = np.array(face.skin) * rng.uniform(0.9, 1.02)
    cloth = rng.uniform(120, 240) * np.array([0.9, 1, 1.02])
    backdrop = rng.uniform(30, 210) + rng.normal(0, 22, 3)
    warmth = rng.normal(0.01, 0.03)
    return Scene(
        light=(float(rng.normal(0, 0.55)), float(rng.normal(-0.35, 0.25)), float(rng.uniform(0.6, 1.0))),
        light_strength=float(rng.uniform(0.2, 0.75)),
        light_colour=(1 + warmth, 1.0, 1 - warmth),
        gain=float(rng.uniform(0.72, 1.15)),
        background=tuple(np.clip(backdrop, 5, 250).tolist()),
        background_end=tuple(np.clip(backdrop + rng.normal(0, 35, 3), 5, 250).tolist()),
        background_angle=float(rng.uniform(0, 2 * np.pi)),
        occluder=occluder if rng.random() < occlusion else "none",
        occluder_side=side,
        occluder_reach=float(rng.uniform(0.15, 0.75)),
        occluder_colour=tuple((cloth if occluder == "mask" else skin).tolist()),
    )


def _keep_in_frame(script: ClipScript, face: FaceIdentity) -> tuple[FacePose, ...]:
    """The poses, made smaller and moved together as far as it takes to have all points of the clip in the frame."""
    points = np.stack(
        [
            project(shape_points(face, expression, float(blink)), pose)
            for expression, blink, pose in zip(script.expressions, script.blinks, script.poses, strict=True)
        ]
    )
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    shrink = min(1.0, float(((1 - 2 * _MARGIN) / (high - low)).min()))
    centre = 0.5 * (low + high)
    low, high = centre + shrink * (low - centre), centre + shrink * (high - centre)
    move = np.maximum(0, _MARGIN - low) + np.minimum(0, 1 - _MARGIN - high)
    if shrink == 1.0 and not move.any():
        return script.poses
    # p -> centre + shrink * (p - centre) + move, in terms of a pose: where the origin of the face's space goes
    origin = project(np.zeros(3), FacePose())
    poses = []
    for pose in script.poses:
        shift = centre + shrink * (origin + np.array(pose.shift) - centre) + move - origin
        poses.append(replace(pose, shift=(float(shift[0]), float(shift[1])), scale=pose.scale * shrink))
    return tuple(poses)


__all__ = ["SYNTHETIC_LABELS", "ClipScript", "SyntheticFaces", "label_expression"]
