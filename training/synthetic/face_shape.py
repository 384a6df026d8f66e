"""The parameters of a cartoon face, the 68 points that follow from them, and how a head turns."""

from dataclasses import dataclass

import numpy as np

EXPRESSION_PARAMETERS = (
    "brow_raise",  # both brows up, or down where negative
    "brow_slant",  # inner ends of the brows up, or down where negative
    "brow_pinch",  # brows towards each other, with a furrow between them
    "lid_open",  # upper lids wide, or half closed where negative
    "lid_raise",  # lower lids up, as cheeks push them
    "mouth_corner",  # corners up, or down where negative
    "mouth_open",  # the jaw drops
    "mouth_width",  # corners apart, or a rounded mouth where negative
    "lip_press",  # thin lips
    "lip_raise",  # the upper lip bares the teeth
    "nose_wrinkle",
    "cheek_raise",
)

BEARDS = ("none", "stubble", "moustache", "full")
GLASSES = ("none", "round", "square")
HAIR_STYLES = ("bald", "short", "fringe", "parted", "long", "curly")
OCCLUDERS = ("none", "hand", "strand", "mask")

Colour = tuple[float, float, float]

# Half of a face, from the chin up to the ear: the unit is half a face's width, x points right, y down, and the origin
# lies on the bridge of the nose.
_JAW_X = np.array([0, 0.19, 0.36, 0.51, 0.64, 0.75, 0.83, 0.885, 0.91])
_JAW_Y = np.array([1.04, 1.02, 0.95, 0.83, 0.66, 0.45, 0.21, -0.04, -0.29])
_JAW_DROP = np.array([1, 1, 0.95, 0.8, 0.55, 0.3, 0.1, 0, 0])
_JAW_CORNER = np.array([0, 0.15, 0.45, 0.8, 1, 0.9, 0.6, 0.25, 0])
_CHIN = np.array([0, 1, 0.9, 0.5, 0.2, 0, 0, 0, 0])
_EYE_MIRROR = [3, 2, 1, 0, 5, 4]  # the points of the right eye, in the order of the left one's mirror images

_FRAME_CENTRE = np.array([0.5, 0.445])
FRAME_SCALE = 0.41  # half a face's width, as a fraction of the frame


@dataclass(frozen=True)
class FaceIdentity:
    """
    What stays the same about a person. Proportions are factors around 1 unless stated, colours RGB from 0 to 255.

    `brow_rest` and `mouth_rest` are how the slant of the brows and the mouth's corners look without any expression,
    in the units of `EXPRESSION_PARAMETERS`; `eye_tilt` is the slope of the eyes.

    Raises:
        ValueError: if `hair_style`, `beard` or `glasses` is not one of `HAIR_STYLES`, `BEARDS`, `GLASSES`.
    """

    face_width: float = 1.0
    face_length: float = 1.0
    jaw_width: float = 1.0
    chin_width: float = 1.0
    eye_size: float = 1.0
    eye_spacing: float = 1.0
    eye_tilt: float = 0.0
    brow_height: float = 1.0
    brow_arch: float = 1.0
    brow_thickness: float = 1.0
    nose_length: float = 1.0
    nose_width: float = 1.0
    mouth_width: float = 1.0
    mouth_height: float = 1.0
    lip_fullness: float = 1.0
    brow_rest: float = 0.0
    mouth_rest: float = 0.0
    wrinkles: float = 1.0
    lashes: float = 1.0
    hair_style: str = "short"
    hair_height: float = 1.0
    beard: str = "none"
    glasses: str = "none"
    skin: Colour = (224, 178, 148)
    hair: Colour = (70, 48, 34)
    iris: Colour = (90, 70, 50)
    lips: Colour = (186, 98, 92)
    clothes: Colour = (80, 90, 120)
    glasses_colour: Colour = (40, 36, 36)

    def __post_init__(self) -> None:
        _check_one_of("hair_style", self.hair_style, HAIR_STYLES)
        _check_one_of("beard", self.beard, BEARDS)
        _check_one_of("glasses", self.glasses, GLASSES)


@dataclass(frozen=True)
class FacePose:
    """Where a head is and looks: angles in radians, `shift` in fractions of the frame, `scale` around 1."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0


@dataclass(frozen=True)
class Scene:
    """
    Light, background and what stands in front of the face.

    `light` points to the lamp (x right, y down, z to the camera) and `light_strength` from 0 to 1 says how much of the
    light comes from there; `light_colour` and `gain` multiply the picture. `background` and `background_end` are the
    ends of a gradient in direction `background_angle` (radians). The occluder comes from `occluder_side` (-1 left,
    1 right) and covers from the edge of the face (`occluder_reach` 0) to its middle (1).

    Raises:
        ValueError: if `occluder` is not one of `OCCLUDERS`.
    """

    light: tuple[float, float, float] = (0.3, -0.4, 0.85)
    light_strength: float = 0.5
    light_colour: Colour = (1.0, 1.0, 1.0)
    gain: float = 1.0
    background: Colour = (150, 160, 170)
    background_end: Colour = (110, 120, 130)
    background_angle: float = 0.5
    occluder: str = "none"
    occluder_side: int = 1
    occluder_reach: float = 0.5
    occluder_colour: Colour = (200, 150, 125)

    def __post_init__(self) -> None:
        _check_one_of("occluder", self.occluder, OCCLUDERS)


def _check_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")


def shape_points(identity: FaceIdentity, expression: np.ndarray, blink: float = 0.0) -> np.ndarray:
    """
    The 68 points of a face in its own space, before its pose.

    Args:
        identity (`FaceIdentity`): Whose face.
        expression (`np.ndarray` of shape `(len(EXPRESSION_PARAMETERS),)`): Mostly within -1 and 1; zeros are neutral.
        blink (`float`): From 0, as the expression has the lids, to 1, shut.

    Returns:
        `np.ndarray` of shape `(68, 3)`: x to the right, y down, z to the camera, in halves of a face's width.
    """
    e = dict(zip(EXPRESSION_PARAMETERS, (float(value) for value in expression), strict=True))
    mouth_open = max(0.0, e["mouth_open"])
    points = np.zeros((68, 3))

    x = _JAW_X * identity.face_width
    x = x * (1 + (identity.jaw_width - 1) * _JAW_CORNER + (identity.chin_width - 1) * _CHIN)
    y = np.where(_JAW_Y > 0, _JAW_Y * identity.face_length, _JAW_Y) + 0.2 * mouth_open * _JAW_DROP
    half_jaw = np.stack([x, y, 0.18 * (1 - np.arange(9) / 8)], axis=1)
    points[8:17] = half_jaw
    points[:9] = mirror(half_jaw[::-1])

    tilt = e["brow_slant"] + identity.brow_rest
    along = np.arange(5) / 4  # from a brow's inner end to its outer one
    brow_x = 0.16 + 0.53 * along - 0.06 * e["brow_pinch"] * (1 - along)
    brow_y = -0.5 * identity.brow_height - 0.085 * identity.brow_arch * np.sin(np.pi * (0.08 + 0.87 * along))
    brow_y = brow_y - 0.13 * e["brow_raise"] + 0.04 * e["nose_wrinkle"] * (1 - along)
    brow_y = brow_y - 0.13 * tilt * (1 - along) ** 1.3 + 0.05 * tilt * along
    brow = np.stack([brow_x * identity.face_width, brow_y, 0.5 - 0.22 * along**2], axis=1)
    points[22:27] = brow
    points[17:22] = mirror(brow[::-1])

    width = 0.205 * identity.eye_size
    lower = 0.066 * identity.eye_size * (1 - 0.55 * e["lid_raise"])
    upper = 0.108 * identity.eye_size * (1 + 0.5 * e["lid_open"] - 0.15 * e["lid_raise"])
    upper = max(upper, -0.2 * lower) * (1 - blink) - 0.75 * lower * blink
    across = np.array([-1, -0.4, 0.4, 1, 0.42, -0.4])
    lids = np.array([0, -upper, -0.97 * upper, 0, lower, 0.95 * lower])
    eye_x = 0.4 * identity.eye_spacing * identity.face_width + width * across
    eye_y = -0.22 + lids - identity.eye_tilt * width * across
    eye = np.stack([eye_x, eye_y, 0.42 - 0.1 * (across + 1)], axis=1)
    points[42:48] = eye
    points[36:42] = mirror(eye[_EYE_MIRROR])

    length = identity.nose_length
    points[27:31, 1] = np.array([-0.2, -0.03, 0.13, 0.28]) * np.array([1, length, length, length])
    points[27:31, 2] = [0.56, 0.66, 0.76, 0.84]
    base_x = np.array([-0.175, -0.09, 0, 0.09, 0.175]) * identity.nose_width * (1 + 0.15 * e["nose_wrinkle"])
    base_y = np.array([0.37, 0.4, 0.415, 0.4, 0.37]) * length
    base_y = base_y - 0.05 * e["nose_wrinkle"] * np.array([1, 0.7, 0.5, 0.7, 1])
    points[31:36] = np.stack([base_x, base_y, [0.58, 0.66, 0.7, 0.66, 0.58]], axis=1)

    points[48:68] = _mouth(identity, e, mouth_open)
    return points


def _mouth(identity: FaceIdentity, e: dict[str, float], mouth_open: float) -> np.ndarray:
    """The points 48 to 67, `(20, 3)`: the outer contour, then the inner one, each clockwise from the left corner."""
    width = 0.35 * identity.mouth_width * (1 + 0.27 * e["mouth_width"] - 0.06 * mouth_open)
    thin = identity.lip_fullness * (1 - 0.55 * max(0.0, e["lip_press"])) * (1 - 0.15 * max(0.0, e["mouth_width"]))
    upper_lip, lower_lip = 0.085 * thin, 0.105 * thin
    # the teeth show between two lips that part upwards, an open mouth goes down with the jaw
    rounded = mouth_open * min(1.0, max(0.0, -e["mouth_width"]))
    upper_gap = 0.045 * mouth_open + 0.05 * rounded + 0.05 * max(0.0, e["lip_raise"])
    lower_gap = 0.34 * mouth_open + 0.05 * max(0.0, e["lip_raise"])

    side = 0.63 + 0.13 * rounded
    upper_x = [-1, -side, -0.24, 0, 0.24, side, 1]
    lower_x = [side, 0.3, 0, -0.3, -side]
    inner_x = [-0.86, -0.45 - 0.15 * rounded, 0, 0.45 + 0.15 * rounded]
    x = np.array([*upper_x, *lower_x, *inner_x, 0.86, *inner_x[:0:-1]])
    upper = -upper_gap * np.array([0.72, 0.97, 1, 0.97, 0.72]) - upper_lip * np.array([0.62, 1, 0.85, 1, 0.62])
    lower = lower_gap * np.array([0.7, 0.96, 1, 0.96, 0.7]) + lower_lip * np.array([0.6, 0.95, 1, 0.95, 0.6])
    bow = np.array([0.86, 1, 0.86])
    y = np.concatenate([[0], upper, [0], lower, [0], -upper_gap * bow, [0], lower_gap * bow])
    corner = e["mouth_corner"] + identity.mouth_rest
    y = y - 0.17 * corner * (np.abs(x) ** 1.7 - 0.3)
    y[[0, 6, 12, 16]] += 0.35 * lower_gap  # the corners of an open mouth follow the jaw a little
    centre = 0.64 * identity.mouth_height * (0.6 + 0.4 * identity.face_length) - 0.02 * e["nose_wrinkle"]
    return np.stack([width * x, centre + y, 0.58 - 0.2 * np.abs(x) ** 2], axis=1)


def mirror(points: np.ndarray) -> np.ndarray:
    return points * np.array([-1, 1, 1])


def project(points: np.ndarray, pose: FacePose) -> np.ndarray:
    """
    Points of a face's own space in the frame.

    Args:
        points (`np.ndarray` of shape `(..., 3)`): As `shape_points` gives them.
        pose (`FacePose`): The head's pose.

    Returns:
        `np.ndarray` of shape `(..., 2)`: x to the right and y down, as fractions of the frame.
    """
    matrix, offset = camera(pose)
    return points @ matrix + offset


def camera(pose: FacePose) -> tuple[np.ndarray, np.ndarray]:
    """`(3, 2)` and `(2,)`: what takes points of a face's space to the frame. The depth is dropped."""
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = sine_cosine(pose.yaw) + sine_cosine(pose.pitch)
    sin_roll, cos_roll = sine_cosine(pose.roll)
    yaw = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
    pitch = np.array([[1, 0, 0], [0, cos_pitch, sin_pitch], [0, -sin_pitch, cos_pitch]])
    roll = np.array([[cos_roll, -sin_roll, 0], [sin_roll, cos_roll, 0]])
    matrix = (roll @ pitch @ yaw).T * (FRAME_SCALE * pose.scale)
    return matrix, _FRAME_CENTRE + np.array(pose.shift)


def sine_cosine(angle: float) -> tuple[float, float]:
    return float(np.sin(angle)), float(np.cos(angle))


__all__ = [
    "BEARDS",
    "EXPRESSION_PARAMETERS",
    "FRAME_SCALE",
    "GLASSES",
    "HAIR_STYLES",
    "OCCLUDERS",
    "Colour",
    "FaceIdentity",
    "FacePose",
    "Scene",
    "camera",
    "mirror",
    "project",
    "shape_points",
    "sine_cosine",
]
