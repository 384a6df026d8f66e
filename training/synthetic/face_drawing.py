"""One cartoon face, drawn from its parameters."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from .face_shape import (
    EXPRESSION_PARAMETERS,
    FRAME_SCALE,
    Colour,
    FaceIdentity,
    FacePose,
    Scene,
    camera,
    mirror,
    shape_points,
    sine_cosine,
)

_ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES), np.zeros(12)], axis=1)
_HALF_TURN = np.linspace(0, np.pi, 25)
_ARC = np.stack([np.cos(_HALF_TURN), np.sin(_HALF_TURN) ** 0.9, np.sin(_HALF_TURN)], axis=1)
_FIXED_POINT_BITS = 4


def draw_face(
    identity: FaceIdentity,
    expression: np.ndarray,
    pose: FacePose | None = None,
    scene: Scene | None = None,
    blink: float = 0.0,
    gaze: tuple[float, float] = (0.0, 0.0),
    image_size: int = 112,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Draws a face; neither blur nor noise is added.

    Args:
        identity (`FaceIdentity`): Whose face.
        expression (`np.ndarray` of shape `(len(EXPRESSION_PARAMETERS),)`): Mostly within -1 and 1; zeros are neutral.
        pose (`FacePose`, *optional*): Frontal and centred if not given.
        scene (`Scene`, *optional*): Light, background, occlusion.
        blink (`float`): From 0 to 1, shut.
        gaze (`tuple[float, float]`): Where the eyes look, right and down, from -1 to 1.
        image_size (`int`): Height and width in pixels.

    Returns:
        `np.ndarray` of shape `(image_size, image_size, 3)`, uint8 RGB, and `np.ndarray` of shape `(68, 2)`, float32:
        the points in iBUG order, (x, y) as fractions of the frame. They lie on the drawn contours, also where an
        occluder hides them.

    Raises:
        ValueError: if `image_size` is below 16, or `expression` has another length.
    """
    if image_size < 16:
        raise ValueError(f"`image_size` must be at least 16 pixels, got {image_size}.")
    expression = np.asarray(expression, dtype=np.float64)
    if expression.shape != (len(EXPRESSION_PARAMETERS),):
        raise ValueError(
            f"`expression` must hold the {len(EXPRESSION_PARAMETERS)} values of EXPRESSION_PARAMETERS, got an array "
            f"of shape {expression.shape}."
        )
    pose, scene = pose or FacePose(), scene or Scene()
    drawing = _FaceDrawing(identity, expression, pose, scene, blink, gaze, image_size)
    return drawing.draw(), drawing.points.astype(np.float32)


class _Canvas:
    """An image that is drawn on in fractions of its size, smoothly and between pixels."""

    def __init__(self, image: np.ndarray):
        self.image = image
        self.size = image.shape[0]
        self._steps, self._half_pixel = self.size << _FIXED_POINT_BITS, 0.5 * (1 << _FIXED_POINT_BITS)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Fixed-point coordinates; the centre of pixel 0 lies half a pixel inside the frame."""
        return np.rint(points * self._steps - self._half_pixel).astype(np.int32)

    def fill(self, points: np.ndarray, colour: Colour | float) -> None:
        cv2.fillPoly(self.image, [self.pixels(points)], colour, cv2.LINE_AA, _FIXED_POINT_BITS)

    def line(self, points: np.ndarray, colour: Colour | float, width: float, closed: bool = False) -> None:
        thickness = max(1, round(width * self.size))
        cv2.polylines(self.image, [self.pixels(points)], closed, colour, thickness, cv2.LINE_AA, _FIXED_POINT_BITS)

    def disc(self, centre: np.ndarray, radius: float, colour: Colour | float) -> None:
        x, y = self.pixels(centre).tolist()
        reach = max(1, round(radius * self.size * (1 << _FIXED_POINT_BITS)))
        cv2.circle(self.image, (x, y), reach, colour, -1, cv2.LINE_AA, _FIXED_POINT_BITS)

    def blend(self, points: np.ndarray, colour: Colour, opacity: float, softness: float) -> None:
        """Fills a polygon translucently, with an edge of `softness` (a fraction of the frame)."""
        corners = points * self.size
        margin = int(3 * softness * self.size) + 2
        left, top = np.maximum(0, np.floor(corners.min(0)).astype(int) - margin)
        right, bottom = np.minimum(self.size, np.ceil(corners.max(0)).astype(int) + margin)
        if left >= right or top >= bottom:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        shifted = self.pixels(points) - (np.array([left, top]) << _FIXED_POINT_BITS).astype(np.int32)
        cv2.fillPoly(mask, [shifted], 255, cv2.LINE_AA, _FIXED_POINT_BITS)
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.3, softness * self.size))
        weight = mask[..., None] * np.float32(opacity / 255)
        area = self.image[top:bottom, left:right]
        area[:] = np.rint(area + weight * (np.asarray(colour, np.float32) - area))


class _FaceDrawing:
    """The parts of one face; `draw` puts them on top of each other."""

    def __init__(
        self,
        identity: FaceIdentity,
        expression: np.ndarray,
        pose: FacePose,
        scene: Scene,
        blink: float,
        gaze: tuple[float, float],
        image_size: int,
    ):
        self.identity, self.pose, self.scene, self.gaze, self.image_size = identity, pose, scene, gaze, image_size
        self.expression = dict(zip(EXPRESSION_PARAMETERS, expression.tolist(), strict=True))
        self.shape = shape_points(identity, expression, blink)
        self.matrix, self.offset = camera(pose)
        self.points = self.place(self.shape)
        self.unit = FRAME_SCALE * pose.scale  # half a face's width in fractions of the frame

    def draw(self) -> np.ndarray:
        size = self.image_size
        detail = 2 if size <= 160 else 1  # small faces are drawn larger and shrunk, for smoother contours
        canvas = _Canvas(_background(self.scene, size * detail))
        self._draw_behind(canvas)
        canvas.fill(self._outline(), self.identity.skin)
        self._draw_beard(canvas)
        self._draw_nose(canvas)
        for eye, brow in ((36, 17), (42, 22)):
            self._draw_eye(canvas, eye)
            self._draw_brow(canvas, brow)
        self._draw_mouth(canvas)
        self._draw_hair(canvas)
        self._draw_glasses(canvas)
        image = canvas.image if detail == 1 else cv2.resize(canvas.image, (size, size), interpolation=cv2.INTER_AREA)
        light = self._light_map() * self._relief()
        tint = [self.scene.gain * channel for channel in self.scene.light_colour]
        image = cv2.multiply(image, cv2.merge([light * np.float32(t) for t in tint]), dtype=cv2.CV_8U)
        self._draw_occluder(_Canvas(image), tint)
        return image

    def place(self, points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Points of the face's own space, `(n, 3)`, in the frame."""
        return np.asarray(points, dtype=np.float64) @ self.matrix + self.offset

    def _skull(self, grow: float = 1.0) -> np.ndarray:
        """The arc over the forehead, from the right end of the jaw line to its left one, `(25, 3)`."""
        ear = self.shape[16]
        span = np.array([grow * ear[0], -0.98 * grow * self.identity.hair_height, 0.25])
        return _ARC * span + np.array([0, ear[1], 0])

    def _outline(self) -> np.ndarray:
        return np.concatenate([_spline(self.points[:17]), self.place(self._skull())])

    def _draw_behind(self, canvas: _Canvas) -> None:
        identity, ear, chin = self.identity, self.shape[16], self.shape[8]
        width = ear[0]
        if identity.hair_style == "long":
            mane = self._skull(1.2)
            sides = [[-1.25 * width, 0.6, -0.2], [-1.12 * width, 1.8, -0.2], [1.12 * width, 1.8, -0.2]]
            mane = np.concatenate([mane, sides, [[1.25 * width, 0.6, -0.2]]])
            mane[:, 2] = -0.2
            canvas.fill(self.place(mane), _mix(identity.hair, (0, 0, 0), 0.25))
        neck_top, neck_end = 0.6 * chin[1], chin[1] + 0.45
        neck = [[-0.55, neck_top, -0.3], [0.55, neck_top, -0.3], [0.58, neck_end, -0.3], [-0.58, neck_end, -0.3]]
        canvas.fill(self.place(np.array(neck) * [width, 1, 1]), _mix(identity.skin, (40, 10, 10), 0.35))
        shoulders = [[-0.5, 1.3, -0.3], [0.5, 1.3, -0.3], [1.6, 1.55, -0.3], [1.6, 2.6, -0.3], [-1.6, 2.6, -0.3]]
        canvas.fill(self.place([*shoulders, [-1.6, 1.55, -0.3]]), identity.clothes)
        if identity.hair_style == "curly":
            curl = self._skull(1.1)[::2]
            for centre in self.place(np.concatenate([curl, curl[[0, -1]] + [0, 0.3, 0]])):
                canvas.disc(centre, 0.3 * self.unit, _mix(identity.hair, (0, 0, 0), 0.15))
        for side in (-1, 1):
            lobe = np.array([side * (width + 0.03), -0.1, -0.12])
            canvas.fill(self.place(_oval(lobe, 0.12, 0.28)), _mix(identity.skin, (120, 30, 20), 0.18))
            canvas.fill(self.place(_oval(lobe, 0.07, 0.16)), _mix(identity.skin, (90, 20, 15), 0.35))

    def _draw_beard(self, canvas: _Canvas) -> None:
        identity, shape = self.identity, self.shape
        if identity.beard == "none":
            return
        opacity, softness = (0.32, 0.02) if identity.beard == "stubble" else (0.92, 0.006)
        upper_lip = 0.5 * (shape[33] + shape[51])
        moustache = np.stack(
            [
                shape[48] + [-0.06, 0.02, 0],
                0.5 * (shape[49] + shape[31]) + [-0.02, 0.02, 0],
                upper_lip - [0, 0.02, 0],
                0.5 * (shape[53] + shape[35]) + [0.02, 0.02, 0],
                shape[54] + [0.06, 0.02, 0],
                shape[51] + [0, 0.03, 0],
            ]
        )
        colour = _mix(identity.hair, (0, 0, 0), 0.1)
        if identity.beard != "moustache":
            inner = np.stack(
                [
                    shape[15] * [0.94, 1, 1],
                    shape[13] * [0.8, 0.98, 1],
                    shape[54] + [0.1, 0.03, 0],
                    shape[57] + [0, 0.05, 0],
                    shape[48] + [-0.1, 0.03, 0],
                    shape[3] * [0.8, 0.98, 1],
                    shape[1] * [0.94, 1, 1],
                ]
            )
            beard = np.concatenate([_spline(self.points[1:16]), _spline(self.place(inner))])
            canvas.blend(beard, colour, opacity, softness)
        canvas.blend(_spline(self.place(moustache), closed=True), colour, opacity, softness)

    def _draw_nose(self, canvas: _Canvas) -> None:
        skin, shape = self.identity.skin, self.shape
        shadow, deep = _mix(skin, (70, 20, 15), 0.32), _mix(skin, (40, 8, 8), 0.72)
        for side, wing in ((-1, 31), (1, 35)):
            x, y, z = shape[wing]
            wing_curve = [[x - side * 0.06, y + 0.025, z], [x, y, z], [x + side * 0.01, y - 0.05, z]]
            wing_curve.append([x - side * 0.025, y - 0.115, z])
            canvas.line(_spline(self.place(wing_curve)), shadow, 0.028 * self.unit)
            nostril = shape[33] * [0, 0.55, 0.55] + shape[33 + side] * [1, 0.45, 0.45] - [0, 0.012, 0]
            canvas.fill(self.place(_oval(nostril, 0.047, 0.022)), deep)
        canvas.line(_spline(self.points[31:36]), _mix(skin, (50, 10, 10), 0.5), 0.02 * self.unit)

    def _draw_eye(self, canvas: _Canvas, first: int) -> None:
        identity, unit = self.identity, self.unit
        eye = self.points[first : first + 6]
        upper, lower = _spline(eye[:4]), _spline(eye[[3, 4, 5, 0]])
        contour = np.concatenate([upper, lower])
        skin_shadow = _mix(identity.skin, (60, 15, 15), 0.42)
        crease = upper + (self.place([[0, -0.055, 0]]) - self.place([[0, 0, 0]]))
        canvas.line(crease[2:-2], skin_shadow, 0.018 * unit)

        # the eyeball is drawn on a patch of its own, to be seen only between the lids
        margin = 0.02
        left, top = np.maximum(0, np.floor((contour.min(0) - margin) * canvas.size).astype(int))
        right, bottom = np.minimum(canvas.size, np.ceil((contour.max(0) + margin) * canvas.size).astype(int))
        if left < right and top < bottom:
            ball = _Canvas(np.empty_like(canvas.image))  # as large as the frame: its coordinates stay the frame's
            area = ball.image[top:bottom, left:right]
            area[:] = (236, 232, 226)
            look = np.array([0.06 * self.gaze[0], -0.015 + 0.035 * self.gaze[1], 0])
            middle = 0.5 * (self.shape[first] + self.shape[first + 3])
            centre = self.place([middle + look])[0]
            radius = 0.098 * identity.eye_size * unit
            ball.disc(centre, radius, _mix(identity.iris, (0, 0, 0), 0.45))
            ball.disc(centre, 0.82 * radius, identity.iris)
            ball.disc(centre, 0.46 * radius, (16, 12, 12))
            glint = centre + 0.38 * radius * np.sign(self.scene.light[:2])
            ball.disc(glint, 0.24 * radius, (250, 250, 250))
            ball.line(upper + np.array([0, 0.03 * unit]), _mix(identity.skin, (90, 80, 90), 0.7), 0.04 * unit)
            mask = np.zeros(canvas.image.shape[:2], np.uint8)
            _Canvas(mask).fill(contour, 255)
            weight = mask[top:bottom, left:right, None] * np.float32(1 / 255)
            target = canvas.image[top:bottom, left:right]
            target[:] = np.rint(target + weight * (area.astype(np.float32) - target))

        canvas.line(lower, skin_shadow, 0.018 * unit)
        canvas.line(upper, _mix(identity.hair, (20, 12, 10), 0.75), 0.034 * identity.lashes * unit)

    def _draw_brow(self, canvas: _Canvas, first: int) -> None:
        brow = self.shape[first : first + 5]
        inner_first = brow if first == 22 else brow[::-1]
        dense = _spline(inner_first)
        along = np.linspace(0, 1, len(dense))
        half = 0.047 * self.identity.brow_thickness * np.clip(1.15 - 0.85 * along**1.5, 0.2, 1)
        half = half * np.clip(0.65 + 4 * along, 0, 1)
        offset = np.stack([0 * half, half, 0 * half], axis=1)
        contour = self.place(np.concatenate([dense - offset, (dense + offset)[::-1]]))
        colour = _mix(_mix(self.identity.hair, (25, 18, 15), 0.35), self.identity.skin, 0.12)
        # also hair as light as the skin leaves brows that can be seen
        canvas.fill(contour, tuple(min(c, 0.62 * skin) for c, skin in zip(colour, self.identity.skin, strict=True)))

    def _draw_mouth(self, canvas: _Canvas) -> None:
        points, unit, lips = self.points, self.unit, self.identity.lips
        outer_upper, outer_lower = _spline(points[48:55]), _spline(points[[54, 55, 56, 57, 58, 59, 48]])
        inner_upper, inner_lower = _spline(points[60:65]), _spline(points[[64, 65, 66, 67, 60]])
        canvas.fill(np.concatenate([outer_upper, outer_lower]), lips)
        upper_lip = np.concatenate([outer_upper, inner_upper[::-1]])
        canvas.fill(upper_lip, _mix(lips, (60, 10, 15), 0.24))
        gap = float(np.linalg.norm(points[66] - points[62])) / unit
        dark = _mix(lips, (30, 5, 8), 0.85)
        if gap > 0.015:
            canvas.fill(np.concatenate([inner_upper, inner_lower]), dark)
            lower_from_left = inner_lower[::-1]
            share = min(0.8, (0.045 + 0.08 * max(0.0, self.expression["lip_raise"])) / gap)
            teeth = np.concatenate([inner_upper, (inner_upper + share * (lower_from_left - inner_upper))[::-1]])
            centre = 0.5 * (points[62] + points[66])
            canvas.fill(centre + (teeth - centre) * [0.93, 0.97], (235, 230, 218))
            if gap > 0.16:
                tongue = inner_upper + 0.68 * (lower_from_left - inner_upper)
                tongue = np.concatenate([tongue, inner_lower])
                canvas.fill(centre + (tongue - centre) * [0.7, 0.95], (176, 78, 80))
        seam = 0.026 if gap < 0.05 else 0.016
        canvas.line(np.concatenate([points[48:49], inner_upper, points[54:55]]), dark, seam * unit)
        shine = 0.5 * (points[[56, 57, 58]] + points[[65, 66, 67]])
        canvas.line(_spline(shine), _mix(lips, (255, 235, 235), 0.25), 0.02 * unit)

    def _draw_hair(self, canvas: _Canvas) -> None:
        identity = self.identity
        if identity.hair_style == "bald":
            return
        width, ear = self.shape[16][0], self.shape[16][1]
        # heights of the hair line from the left temple to the right one, over the skull's arc
        line = {
            "short": [-0.45, -0.78, -0.9, -0.93, -0.9, -0.78, -0.45],
            "fringe": [-0.3, -0.62, -0.7, -0.66, -0.71, -0.63, -0.3],
            "parted": [-0.35, -0.62, -0.75, -0.86, -0.98, -0.86, -0.4],
            "long": [-0.3, -0.72, -0.9, -0.98, -0.9, -0.72, -0.3],
            "curly": [-0.4, -0.74, -0.8, -0.84, -0.8, -0.74, -0.4],
        }[identity.hair_style]
        x = np.array([-1.03, -0.82, -0.48, 0, 0.48, 0.82, 1.03]) * width
        y = ear + (np.array(line) - ear) * identity.hair_height
        edge = np.stack([x, y, [0, 0.15, 0.38, 0.45, 0.38, 0.15, 0]], axis=1)
        top = self._skull(1.08)
        sideburn = [[1.03 * width, ear + 0.12, 0]]
        cap = np.concatenate([self.place(top), self.place(mirror(np.array(sideburn))), _spline(self.place(edge))])
        canvas.fill(np.concatenate([cap, self.place(sideburn)]), identity.hair)
        gleam = _mix(identity.hair, (255, 240, 220), 0.16)
        for grow in (0.86, 0.94, 1.0):
            strand = self._skull(grow)[5:20] - [0, 0.06, 0]
            canvas.line(self.place(strand), gleam, 0.02 * self.unit)
        if identity.hair_style == "long":
            for side in (-1, 1):
                lock = [[0.8, -0.75, 0.1], [0.97, -0.3, 0], [1.0, 0.3, 0], [0.96, 1.0, 0], [0.98, 1.8, 0]]
                outer = [[1.3, 1.8, 0], [1.24, 0.3, 0], [1.16, -0.5, 0]]
                contour = np.array(lock + outer) * [side * width, 1, 1]
                canvas.fill(_spline(self.place(contour), closed=True), _mix(identity.hair, (0, 0, 0), 0.06))

    def _draw_glasses(self, canvas: _Canvas) -> None:
        identity = self.identity
        if identity.glasses == "none":
            return
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        power = 1.0 if identity.glasses == "round" else 0.5
        x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
        y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
        width = 0.03 * self.unit
        middle = 0.4 * identity.eye_spacing * identity.face_width
        for side in (-1, 1):
            ring = np.stack([side * middle + 0.285 * x, -0.19 + 0.22 * y, 0.5 + 0 * x], axis=1)
            canvas.line(self.place(ring), identity.glasses_colour, width, closed=True)
            arm = [[side * (middle + 0.28), -0.24, 0.45], [side * 0.95 * identity.face_width, -0.28, 0]]
            canvas.line(self.place(arm), identity.glasses_colour, width)
        bridge = [[0.285 - middle, -0.21, 0.5], [0, -0.25, 0.6], [middle - 0.285, -0.21, 0.5]]
        canvas.line(_spline(self.place(bridge)), identity.glasses_colour, width)

    def _light_map(self) -> np.ndarray:
        """How bright each pixel is under the lamp, `(size, size)` float32: the head is taken for an ellipsoid."""
        coarse = max(16, self.image_size // 4)
        grid = (np.arange(coarse, dtype=np.float32) + 0.5) / coarse
        centre = self.place([[0, -0.05, 0.2]])[0]
        dx, dy = grid[None, :] - centre[0], grid[:, None] - centre[1]
        sine, cosine = sine_cosine(self.pose.roll)
        u = (dx * cosine + dy * sine) / (1.05 * self.unit * self.identity.face_width)
        v = (dy * cosine - dx * sine) / (1.4 * self.unit)
        squared = u * u + v * v
        depth = np.sqrt(np.maximum(0.06, 1 - squared))
        light = np.asarray(self.scene.light) / np.linalg.norm(self.scene.light)
        lambert = np.maximum(0, u * light[0] + v * light[1] + depth * light[2]) / np.sqrt(np.maximum(1, squared))
        strength = self.scene.light_strength
        shade = (1 - strength) + strength * 1.35 * lambert
        shade += np.clip((squared - 1) / 0.35, 0, 1) * (0.95 - shade)  # the background is lit from elsewhere
        return cv2.resize(shade.astype(np.float32), (self.image_size,) * 2, interpolation=cv2.INTER_LINEAR)

    def _relief(self) -> np.ndarray:
        """What hollows, folds and wrinkles do to the brightness, `(size, size)` float32 around 1."""
        size, e, shape, unit = self.image_size, self.expression, self.shape, self.unit
        level = 128
        coarse = size // 2  # enough for what is blurred that much
        soft = _Canvas(np.full((coarse, coarse), level, np.uint8))
        lit_side = 1 if self.scene.light[0] >= 0 else -1
        for side, eye, wing, jaw in ((-1, 36, 31, 3), (1, 42, 35, 13)):
            middle = shape[eye : eye + 6].mean(0)
            soft.fill(self.place(_oval(_moved(middle, 0, 0.02), 0.23, 0.15)), level - 14)
            bridge = [[side * 0.05, -0.2, 0.5], [side * 0.16, 0.3, 0.5], shape[wing], [0, shape[30, 1], 0.8]]
            soft.fill(self.place(bridge), level + 8 if side == lit_side else level - 26)
            cheek = np.array([side * 0.5, 0.24 - 0.07 * e["cheek_raise"], 0.4])
            glow = level + 8 + 14 * max(0.0, e["cheek_raise"])
            soft.fill(self.place(_oval(cheek, 0.2, 0.13)), glow)
            hollow = 0.55 * shape[jaw] + 0.45 * shape[48 if side < 0 else 54]
            soft.fill(self.place(_oval(hollow, 0.12, 0.14)), level - 8)
        soft.fill(self.place(_oval(_moved(shape[33], 0, 0.04), 0.14, 0.04)), level - 22)
        soft.fill(self.place(_oval(_moved(shape[57], 0, 0.06), 0.17, 0.04)), level - 30)
        soft.line(self.points[28:31], level + 26, 0.05 * unit)

        fine = _Canvas(np.full((size, size), level, np.uint8))
        age = self.identity.wrinkles

        def fold(curve: Sequence[Sequence[float]], strength: float, width: float = 0.03) -> None:
            if strength > 0.08:
                depth = level - 62 * min(1.3, strength) * age
                fine.line(_spline(self.place(curve)), max(0, depth), width * unit)

        smile = max(0.0, e["mouth_corner"]) * 0.9 + 0.5 * max(0.0, e["nose_wrinkle"]) + 0.12
        for side, wing, corner, brow in ((-1, 31, 48, 21), (1, 35, 54, 22)):
            start = _moved(shape[wing], side * 0.05, -0.06, -0.05)
            end = _moved(shape[corner], side * 0.12, 0.06)
            fold([start, _moved(0.5 * (start + end), side * 0.06, -0.02), end], 0.75 * smile, 0.025)
            droop = [_moved(shape[corner], side * 0.04, 0.02), _moved(shape[corner], side * 0.08, 0.12)]
            fold(droop, -e["mouth_corner"])
            furrow = [_moved(shape[brow], -side * 0.09, -0.09, 0.05), _moved(shape[brow], -side * 0.105, 0.1, 0.05)]
            fold(furrow, 1.1 * e["brow_pinch"])
            fold([[side * 0.07, 0, 0.55], [side * 0.14, -0.05, 0.5]], e["nose_wrinkle"])
            eye = 36 if side < 0 else 42
            bag = _moved(shape[eye : eye + 6].mean(0), 0, 0.15 - 0.03 * e["lid_raise"])
            fold([_moved(bag, -0.15, -0.04), bag, _moved(bag, 0.15, -0.04)], 0.6 * e["lid_raise"] + 0.15)
            outer = shape[36 if side < 0 else 45]
            foot = [_moved(outer, side * 0.05, 0, -0.05), _moved(outer, side * 0.15, 0.05, -0.1)]
            fold(foot, 0.8 * e["cheek_raise"])
        for height, reach in ((-0.72, 0.42), (-0.82, 0.34)):
            raised = height - 0.05 * e["brow_raise"]
            arc = [[-reach, raised + 0.02, 0.45], [0, raised - 0.02, 0.5], [reach, raised + 0.02, 0.45]]
            fold(arc, 0.8 * e["brow_raise"])
            arc = [[-0.2, raised + 0.03, 0.45], [0, raised, 0.5], [0.2, raised + 0.03, 0.45]]
            fold(arc, 0.6 * e["brow_slant"])
        relief = cv2.GaussianBlur(soft.image, (0, 0), 0.028 * coarse).astype(np.float32)
        relief = cv2.resize(relief, (size, size), interpolation=cv2.INTER_LINEAR)
        relief += cv2.GaussianBlur(fine.image, (0, 0), max(0.4, 0.006 * size))
        return relief * np.float32(1 / (2 * level))

    def _draw_occluder(self, canvas: _Canvas, tint: Sequence[float]) -> None:
        scene, side = self.scene, self.scene.occluder_side
        colour, hair = (
            tuple(min(255.0, c * t) for c, t in zip(untinted, tint, strict=True))
            for untinted in (scene.occluder_colour, self.identity.hair)
        )
        shadow = _mix(colour, (30, 10, 10), 0.35)
        reach = (1 - scene.occluder_reach) * 0.75  # how far from the middle of the face it ends
        if scene.occluder == "mask":
            shape = self.shape
            nose = shape[29] + [0, 0.02, 0.05]
            rim = [shape[1] + [0, 0.1, 0], 0.5 * (shape[2] + nose), nose, 0.5 * (shape[14] + nose)]
            rim.append(shape[15] + [0, 0.1, 0])
            contour = np.concatenate([_spline(self.place(rim)), _spline(self.points[2:15])[::-1]])
            canvas.fill(contour, colour)
            for height in (0.45, 0.62, 0.79):
                pleat = [[-0.5, height, 0.4], [0, height + 0.05, 0.6], [0.5, height, 0.4]]
                canvas.line(_spline(self.place(pleat)), shadow, 0.02 * self.unit)
        elif scene.occluder == "hand":
            # four fingers that lie over the cheek, and the back of the hand behind them
            for finger in range(4):
                tip = np.array([side * (reach + 0.07 * abs(finger - 1.2)), 0.28 + 0.17 * finger, 0.6])
                root = np.array([side * 1.5, 0.75 + 0.2 * finger, 0.3])
                ends = self.place([tip, root])
                canvas.line(ends, shadow, 0.21 * self.unit)
                canvas.line(ends, colour, 0.175 * self.unit)
        elif scene.occluder == "strand":
            for shift in (0.0, 0.14, 0.25):
                x = side * (reach + shift)
                lock = [[x * 0.5, -1.4, 0.3], [x + side * 0.05, -0.8, 0.5], [x, -0.2, 0.5]]
                lock.append([x + side * 0.2, 0.35 - shift, 0.3])
                canvas.line(_spline(self.place(lock)), _mix(hair, (255, 240, 220), shift), 0.1 * self.unit)


def _moved(point: np.ndarray, right: float, down: float, forward: float = 0.0) -> np.ndarray:
    return point + np.array([right, down, forward])


def _oval(centre: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    """An ellipse of constant depth, `(12, 3)`."""
    return centre + _CIRCLE * np.array([half_width, half_height, 0])


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first`, with `share` of it replaced by `second`."""
    return tuple(a + share * (b - a) for a, b in zip(first, second, strict=True))


def _background(scene: Scene, size: int) -> np.ndarray:
    """A gradient of two colours, `(size, size, 3)` uint8."""
    coarse = (np.arange(8) + 0.5) / 8 - 0.5
    share = 0.5 + 0.7 * (np.cos(scene.background_angle) * coarse + np.sin(scene.background_angle) * coarse[:, None])
    ends = np.asarray(scene.background), np.asarray(scene.background_end)
    gradient = ends[0] + np.clip(share, 0, 1)[..., None] * (ends[1] - ends[0])
    return cv2.resize(np.rint(gradient).astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR)


@lru_cache(maxsize=64)
def _spline_weights(count: int, closed: bool, steps: int = 5) -> np.ndarray:
    """The matrix from `count` points to a curve through them (Catmull-Rom)."""
    segments = count if closed else count - 1
    rows = []
    for segment in range(segments):
        for step in range(steps):
            t = step / steps
            weights = (
                0.5 * (-t + 2 * t**2 - t**3),
                0.5 * (2 - 5 * t**2 + 3 * t**3),
                0.5 * (t + 4 * t**2 - 3 * t**3),
                0.5 * (t**3 - t**2),
            )
            row = np.zeros(count)
            for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
                index = segment + offset
                if closed:
                    row[index % count] += weight
                elif index < 0:  # beyond its ends an open curve goes straight on
                    row[0] += 2 * weight
                    row[1] -= weight
                elif index >= count:
                    row[-1] += 2 * weight
                    row[-2] -= weight
                else:
                    row[index] += weight
            rows.append(row)
    if not closed:
        rows.append(np.eye(count)[-1])
    return np.stack(rows)


def _spline(points: np.ndarray, closed: bool = False) -> np.ndarray:
    """A smooth curve through points `(n, d)`, as a dense polyline `(5 * segments + 1, d)`."""
    points = np.asarray(points, dtype=np.float64)
    return _spline_weights(len(points), closed) @ points


__all__ = ["draw_face"]
