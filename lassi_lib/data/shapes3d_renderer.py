"""Draw a room with one object: a small ray caster for the six factors of 3D Shapes.

*Geometry and colour apart.* Light is added, and a matt surface returns it in proportion to its colour, so
a picture is linear in the three colours:

    picture = floor colour * F + wall colour * W + object colour * O + white,

where F, W and O hold how much light reaches the pixel by way of that surface and `white` is sky and gloss.
These four maps depend on scale, shape and orientation alone: 480 ray casts serve all 480,000 pictures.

*The scene.* The middle-sized capsule is 2 high and the room 9.2 wide; z points up, the object stands
at the origin of a square room with four walls and no ceiling. The camera goes around it: `orientation` is
its azimuth.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from lassi_lib.numerics import threads

Tensor = torch.Tensor
Vector = tuple[Tensor, Tensor, Tensor]  # x, y, z, each [P] (P rays)

SHAPES = ("cube", "cylinder", "sphere", "capsule")
SCALES = tuple(0.75 + 0.5 * i / 7 for i in range(8))  # of the object's size
AZIMUTHS = tuple(-30 + 60 * i / 14 for i in range(15))  # degrees

SAMPLES = 3  # rays per pixel along each edge: antialiasing
ROOM, WALL = 4.6, 2.7  # half width of the room, height of its walls
DISTANCE, HEIGHT, TARGET, VIEW = 4.5, 2.7, 0.92, 0.45  # camera; what it looks at; tangent of half its view
LIGHT = (-0.32, -0.60, math.sqrt(1 - 0.32**2 - 0.60**2))  # direction towards the lamp
AMBIENT, DIFFUSE, GLOSS = 0.45, 0.60, 0.35


def hue_to_rgb(hue: Tensor) -> Tensor:
    """Return colours [..., 3] in [0, 1] of hues [...] in [0, 1)."""
    distance = (hue[..., None] * 6 - torch.tensor([0.0, 2.0, 4.0])).abs()  # from pure red, green, blue
    pure = torch.minimum(distance, 6 - distance).mul(-1).add(2).clamp(0, 1)
    saturation, value = 0.88, 0.94
    return value * (1 - saturation + saturation * pure)


def draw(colours: Tensor, maps: Tensor) -> Tensor:
    """Put colours into one geometry's maps.

    Parameters
    ----------
    colours : torch.Tensor
        float32 [B, 3, 3]: floor, wall and object colour (second axis), red, green, blue (last axis).
    maps : torch.Tensor
        float32 [4, S, S] from `light_maps`.

    Returns
    -------
    torch.Tensor
        uint8 [B, 3, S, S].
    """
    picture = maps[3].expand(len(colours), 3, *maps.shape[1:]).clone()
    for colour, light in zip(colours.unbind(1), maps[:3], strict=True):
        # element by element, never a matrix product: a byte must not depend on the batch it is drawn in
        picture += colour[:, :, None, None] * light
    return picture.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


@lru_cache(maxsize=len(SCALES) * len(SHAPES) * len(AZIMUTHS))
@threads(1)  # its steps are too small to share out
def light_maps(scale: int, shape: int, orientation: int, image_size: int) -> Tensor:
    """Cast the rays of one geometry: float32 [4, S, S], the maps F, W, O and white of the module's text."""
    origin, d = camera(math.radians(AZIMUTHS[orientation]), image_size * SAMPLES)
    t_object, normal = INTERSECT[SHAPES[shape]](origin, d, SCALES[scale])
    t_wall, wall_facing = leave_room(origin, d)
    t_floor = torch.where(d[2] < 0, -origin[2] / d[2], math.inf)
    z_wall = origin[2] + t_wall * d[2]

    on_object = t_object < torch.minimum(t_floor, t_wall)
    on_floor = ~on_object & (t_floor < t_wall)
    on_wall = ~on_object & ~on_floor & (z_wall < WALL)
    sky = ~(on_object | on_floor | on_wall)

    # light that reaches each surface: ambient, and the lamp's by the cosine law (Lambert)
    x, y = origin[0] + t_floor * d[0], origin[1] + t_floor * d[1]
    lit = shadow(x, y, SHAPES[shape], SCALES[scale])
    floor = AMBIENT + DIFFUSE * LIGHT[2] * lit
    wall = (AMBIENT + DIFFUSE * wall_facing) * (0.86 + 0.14 * (z_wall / WALL).clamp(0, 1))
    facing = dot(normal, LIGHT).clamp(min=0)
    solid = AMBIENT * (0.75 + 0.25 * normal[2]) + DIFFUSE * facing
    # gloss: the lamp mirrored in the object (Phong), a small soft spot
    mirrored = 2 * dot(normal, LIGHT) * dot(normal, d) - dot(d, LIGHT)
    spot = (-mirrored).clamp(min=0).square().square().square()
    gloss = GLOSS * spot * spot * spot * (facing > 0)  # 24th power; products only, alike on every machine
    white = torch.where(sky, 0.80 + 0.10 * d[2], 0) + torch.where(on_object, gloss, 0)

    layers = [
        torch.where(on, light, 0) for on, light in ((on_floor, floor), (on_wall, wall), (on_object, solid))
    ]
    rays = torch.stack([*layers, white]).view(4, image_size, SAMPLES, image_size, SAMPLES)
    return rays.mean((2, 4))


def dot(a: Vector, b: Vector | tuple[float, float, float]) -> Tensor:
    """Return a . b, [P]."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def camera(azimuth: float, n: int) -> tuple[tuple[float, float, float], Vector]:
    """Return the camera's place and the unit directions of its n x n rays, row by row from the top left."""
    place = (DISTANCE * math.sin(azimuth), -DISTANCE * math.cos(azimuth), HEIGHT)
    length = math.hypot(DISTANCE, HEIGHT - TARGET)
    ahead = (-place[0] / length, -place[1] / length, (TARGET - HEIGHT) / length)
    right = (math.cos(azimuth), math.sin(azimuth), 0.0)
    up = (
        right[1] * ahead[2] - right[2] * ahead[1],
        right[2] * ahead[0] - right[0] * ahead[2],
        right[0] * ahead[1] - right[1] * ahead[0],
    )
    line = ((torch.arange(n) + 0.5) * (2 / n) - 1) * VIEW
    u, v = line.repeat(n), -line.repeat_interleave(n)
    d = [ahead[k] + u * right[k] + v * up[k] for k in range(3)]
    norm = (d[0] ** 2 + d[1] ** 2 + d[2] ** 2).sqrt()
    return place, tuple(k / norm for k in d)


def leave_room(origin: tuple[float, float, float], d: Vector) -> tuple[Tensor, Tensor]:
    """Return where rays from inside leave the square of the four walls, and how that wall faces the lamp.

    A wall seen from inside has the inward normal: its brightness is the lamp's cosine with it, softened,
    so that no two neighbouring walls look alike.
    """
    side_x, side_y = (torch.where(k < 0, -1.0, 1.0) for k in d[:2])  # of the wall ahead
    t_x, t_y = (ROOM * side_x - origin[0]) / d[0], (ROOM * side_y - origin[1]) / d[1]
    cosine = torch.where(t_x < t_y, -side_x * LIGHT[0], -side_y * LIGHT[1])
    return torch.minimum(t_x, t_y), 0.5 + 0.5 * cosine


def shadow(x: Tensor, y: Tensor, shape: str, scale: float) -> Tensor:
    """Return the share of the lamp's light at points (x, y) of the floor: 1, less where the object is in its way."""
    start = (x, y, torch.zeros_like(x))
    towards = tuple(torch.full_like(x, k) for k in LIGHT)
    t, _ = INTERSECT[shape](start, towards, scale)
    return torch.where(t < math.inf, 0.35, 1.0)


# ---- objects: each returns where rays first meet it (t [P], inf where they miss) and its outward normal


def cube(o: Vector, d: Vector, scale: float) -> tuple[Tensor, Vector]:
    """Slab method: a ray is in the cube while it is between all three pairs of faces."""
    a = 0.72 * scale
    entry, leave = [], []
    for k, centre in enumerate((0.0, 0.0, a)):
        t1, t2 = (centre - a - o[k]) / d[k], (centre + a - o[k]) / d[k]
        entry.append(torch.minimum(t1, t2))
        leave.append(torch.maximum(t1, t2))
    t, face = torch.stack(entry).max(0)
    last = torch.minimum(torch.minimum(leave[0], leave[1]), leave[2])
    hit = (t < last) & (t > 0)
    normal = tuple(torch.where(face == k, -d[k].sign(), 0) for k in range(3))
    return torch.where(hit, t, math.inf), normal


def ball(o: Vector, d: Vector, radius: float, z: float) -> tuple[Tensor, Vector]:
    """Ball of a radius around (0, 0, z): the smaller root of |o + t d - c|^2 = radius^2."""
    b = dot(d, (o[0], o[1], o[2] - z))
    c = o[0] ** 2 + o[1] ** 2 + (o[2] - z) ** 2 - radius**2
    square = b**2 - c
    t = -b - square.clamp(min=0).sqrt()
    at = _along(o, d, t)
    normal = (at[0] / radius, at[1] / radius, (at[2] - z) / radius)
    return torch.where((square > 0) & (t > 0), t, math.inf), normal


def tube(o: Vector, d: Vector, radius: float, low: float, high: float) -> tuple[Tensor, Vector]:
    """Upright tube without lids between two heights.

    Parameters
    ----------
    o, d : tuple of torch.Tensor
        Origins and directions of the rays: x, y, z, each [P]. An origin that all share may be three numbers.
    radius : float
        Of the tube, whose axis is x = y = 0.
    low, high : float
        Heights of its ends.
    """
    a = d[0] ** 2 + d[1] ** 2
    b = o[0] * d[0] + o[1] * d[1]
    square = b**2 - a * (o[0] ** 2 + o[1] ** 2 - radius**2)
    t = (-b - square.clamp(min=0).sqrt()) / a
    at = _along(o, d, t)
    hit = (square > 0) & (t > 0) & (at[2] >= low) & (at[2] <= high)
    return torch.where(hit, t, math.inf), (at[0] / radius, at[1] / radius, torch.zeros_like(t))


def lid(o: Vector, d: Vector, radius: float, z: float) -> tuple[Tensor, Vector]:
    """Horizontal disc at height z, seen from above."""
    t = (z - o[2]) / d[2]
    at = _along(o, d, t)
    hit = (at[0] ** 2 + at[1] ** 2 < radius**2) & (t > 0)
    zero = torch.zeros_like(t)
    return torch.where(hit, t, math.inf), (zero, zero, zero + 1)


def cylinder(o: Vector, d: Vector, scale: float) -> tuple[Tensor, Vector]:
    """Upright cylinder."""
    radius, height = 0.72 * scale, 1.50 * scale
    return _first(tube(o, d, radius, 0, height), lid(o, d, radius, height))


def sphere(o: Vector, d: Vector, scale: float) -> tuple[Tensor, Vector]:
    """Ball that lies on the floor."""
    return ball(o, d, 0.82 * scale, 0.82 * scale)


def capsule(o: Vector, d: Vector, scale: float) -> tuple[Tensor, Vector]:
    """Upright tube that ends in half balls."""
    radius, height = 0.58 * scale, 2.0 * scale
    ends = _first(ball(o, d, radius, radius), ball(o, d, radius, height - radius))
    return _first(tube(o, d, radius, radius, height - radius), ends)


def _along(o: Vector, d: Vector, t: Tensor) -> Vector:
    return tuple(o[k] + t * d[k] for k in range(3))


def _first(one: tuple[Tensor, Vector], other: tuple[Tensor, Vector]) -> tuple[Tensor, Vector]:
    """Return the nearer of two hits: the surface of a union of solids, seen from outside."""
    near = one[0] <= other[0]
    normal = tuple(torch.where(near, a, b) for a, b in zip(one[1], other[1], strict=True))
    return torch.minimum(one[0], other[0]), normal


INTERSECT = {"cube": cube, "cylinder": cylinder, "sphere": sphere, "capsule": capsule}
