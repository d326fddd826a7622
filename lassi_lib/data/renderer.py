"""Draw friendly cartoon faces from continuous factors, vectorised in torch.

A face is some seventy layers painted one over the other. Every layer is a signed distance d(u, v)
(negative inside), turned into a coverage by a ramp one pixel wide: that is the antialiasing. Broad
ramps make soft shading. The canvas is [-1, 1]^2 with v downwards; the face lives in its own
coordinates (u, v), which follow the head's tilt, scale and position, and left-right symmetric parts
are drawn once with \\|u\\|.

All arrays are [B, C, H, W], per-face numbers [B, 1, 1, 1]. Layers touch only the window they need.
"""

from __future__ import annotations

from itertools import pairwise

import torch

CHUNK = 64  # faces drawn at once; always this many, so that a face never depends on its neighbours

Tensor = torch.Tensor

# Factors drawn, in units of the population's standard deviation; 0 is where annotators would be
# split, +1 clearly shows the attribute, -1 clearly does not.
FACTORS = (
    "smile", "earrings", "hat", "necklace", "cheekbones", "oval_face", "mouth_opening", "makeup",
    "lipstick", "wavy_hair", "arched_brows", "paleness", "youth", "blond_hair", "baldness", "lip_size",
    "chubbiness", "narrow_eyes", "eye_bags", "brown_hair", "masculinity", "black_hair", "gray_hair",
    "blush", "double_chin", "bangs", "brow_thickness", "nose_size", "eyeglasses", "clean_shaven",
    "hair_length", "face_width", "eye_size",
)  # fmt: skip
# Nuisances, uniform in [-1, 1].
NUISANCES = (
    "yaw", "pitch", "tilt", "shift_x", "shift_y", "scale", "light", "warmth", "brightness",
    "background_hue", "background_value", "background_glow", "shirt_hue", "shirt_value", "neckline",
    "eye_colour", "gaze", "accessory_hue", "hat_style", "hair_part", "hair_tone", "makeup_hue",
    "freckles",
)  # fmt: skip

# Skin from deep brown to porcelain, placed along the factor `paleness`.
SKIN = ((-4.2, (0.41, 0.26, 0.19)), (-3.4, (0.53, 0.34, 0.24)), (-2.8, (0.69, 0.47, 0.33)),
        (-2.1, (0.87, 0.65, 0.50)), (-1.2, (0.95, 0.75, 0.61)), (-0.3, (0.97, 0.82, 0.71)),
        (0.8, (0.99, 0.91, 0.86)))  # fmt: skip
EYES = ((-1.0, (0.22, 0.12, 0.06)), (-0.3, (0.36, 0.21, 0.10)), (0.1, (0.42, 0.40, 0.18)),
        (0.45, (0.24, 0.46, 0.34)), (1.0, (0.22, 0.47, 0.74)))  # fmt: skip


def rgb(*values: float) -> Tensor:
    """Return a colour as [1, 3, 1, 1]."""
    return torch.tensor(values).view(1, 3, 1, 1)


def palette(stops: tuple, at: Tensor) -> Tensor:
    """Interpolate colours [B, 3, 1, 1] linearly between `stops` (position, colour)."""
    colour = rgb(*stops[0][1]).to(at)
    for (p0, c0), (p1, c1) in pairwise(stops):
        part = ((at - p0) / (p1 - p0)).clamp(0, 1)
        colour = colour + part * (rgb(*c1) - rgb(*c0)).to(at)
    return colour


def hsv(hue: Tensor, saturation: Tensor | float, value: Tensor | float) -> Tensor:
    """Return the colour [B, 3, 1, 1] of a hue in turns, with saturation and value in [0, 1]."""
    phase = torch.tensor([0.0, 2 / 3, 1 / 3]).view(1, 3, 1, 1).to(hue)
    ramp = (((hue + phase) % 1.0) * 6 - 3).abs().sub(1).clamp(0, 1)
    return value * (1 - saturation * (1 - ramp))


def smooth(x: Tensor, low: float, high: float) -> Tensor:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def ellipse(u: Tensor, v: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """Signed distance to an axis-aligned ellipse (first order: exact on the outline)."""
    p, q = u / a, v / b
    k0 = (p * p + q * q).sqrt()
    k1 = ((p / a) ** 2 + (q / b) ** 2).sqrt() + 1e-6
    return k0 * (k0 - 1) / k1


def between(v: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
    """Signed distance to the band top < v < bottom."""
    return torch.maximum(top - v, v - bottom)


def lit(colour: Tensor, k: float) -> Tensor:
    """Lighten skin by k in [0, 1]; dark skin shines warmer, not whiter."""
    return colour + k * (1 - colour) * (0.25 + 0.75 * colour)


def shadow(colour: Tensor, k: Tensor | float) -> Tensor:
    """Darken skin by k in [0, 1]: blood makes shadows redder, not greyer."""
    return colour * (1 - k * rgb(0.62, 0.92, 1.0).to(colour))


class Patch:
    """A window of the canvas: views on the picture and on the faces' coordinates."""

    def __init__(self, picture: Tensor, u: Tensor, v: Tensor, pixel: Tensor) -> None:
        self.picture, self.u, self.v, self.pixel = picture, u, v, pixel

    def crop(self, half: float, v0: float, v1: float) -> Patch:
        """Return the window [-half, half] x [v0, v1] of the head's coordinates, with room for any pose."""
        s = self.picture.shape[-1]
        x = 1.11 * half + 0.07 + 0.10 * max(abs(v0 - 0.55), abs(v1 - 0.55))
        y0 = (v0 - 0.55) * (1.11 if v0 < 0.55 else 0.99) + 0.40 - 0.10 * half
        y1 = (v1 - 0.55) * (1.11 if v1 > 0.55 else 0.99) + 0.50 + 0.10 * half
        left, top, bottom = (min(max(int((t + 1) / 2 * s), 0), s) for t in (-x, y0, y1 + 2 / s))
        w = (..., slice(top, bottom), slice(left, s - left))
        return Patch(self.picture[w], self.u[w], self.v[w], self.pixel)

    def moved(self, du: Tensor | float, dv: Tensor | float) -> Patch:
        """Return the same window with the face's coordinates shifted (parallax of the features)."""
        return Patch(self.picture, self.u - du, self.v - dv, self.pixel)

    def fill(
        self, d: Tensor, colour: Tensor, alpha: Tensor | float = 1.0, soft: Tensor | float = 0.0
    ) -> None:
        """Paint `colour` where d < 0, with an edge one pixel plus `soft` wide."""
        cover = (0.5 - d / (self.pixel + soft)).clamp_(0, 1)
        if isinstance(soft, Tensor) or soft > 0:
            cover = cover * cover * (3 - 2 * cover)
        self.picture.lerp_(colour.expand_as(self.picture), cover * alpha)


class Face:
    """Everything the layers share: the factors by name, derived shapes and colours."""

    def __init__(self, factors: Tensor, nuisances: Tensor) -> None:
        for names, table in ((FACTORS, factors), (NUISANCES, nuisances)):
            for i, name in enumerate(names):
                setattr(self, name, table[:, i].view(-1, 1, 1, 1))
        self.age = smooth(-self.youth, -0.5, 1.6)
        self.male = smooth(self.masculinity, -1.0, 1.0)
        self.smiling = smooth(self.smile, -1.3, 1.3)
        self.made_up = smooth(self.makeup, -0.7, 0.9)
        self.bald = smooth(self.baldness, -0.8, 0.3)
        self.long = smooth(self.hair_length, -1.0, 1.6) * (1 - self.bald)
        self.wavy = smooth(self.wavy_hair, -0.7, 0.9)
        self.fat = smooth(self.chubbiness, -2.2, 1.2)
        # the head: half width a, half height b, taper of the jaw, fullness of the cheeks
        oval = (self.oval_face / 1.3).clamp(-1.3, 1.3)
        width = self.face_width.clamp(-2, 2) * 0.014
        self.a = 0.525 - 0.048 * oval + 0.012 * self.male + 0.060 * self.fat + width
        self.b = 0.635 + 0.040 * oval
        self.taper = 0.17 + 0.10 * oval - 0.10 * self.male - 0.06 * self.fat
        self.cheek = 0.03 - 0.03 * oval + 0.17 * self.fat + 0.02 * smooth(self.cheekbones, -1, 1)
        self.skin = palette(SKIN, self.paleness)
        self.skin = self.skin * (1 - self.age * rgb(0.02, 0.04, 0.06).to(self.skin))
        self.shade = shadow(self.skin, 0.30)
        self.line = shadow(self.skin, 0.55)
        self.hair = self.hair_colour()
        self.hair_shade = self.hair * 0.55
        self.hair_light = (self.hair * 1.35 + 0.09).clamp_max(1)

    def hair_colour(self) -> Tensor:
        """Mix the hair colours; each colour's share grows with its factor."""
        tone = self.hair_tone
        colours = (
            (self.black_hair, rgb(0.11, 0.085, 0.085)),
            (self.brown_hair, rgb(0.42, 0.25, 0.14)),
            (self.blond_hair, rgb(0.93, 0.76, 0.42)),
            (self.gray_hair + 0.6 * self.age - 0.5, rgb(0.74, 0.74, 0.75)),
        )
        other = palette(((-1, (0.22, 0.15, 0.11)), (0, (0.52, 0.36, 0.22)), (1, (0.62, 0.27, 0.13))), tone)
        mix, total = other, torch.ones_like(tone)
        for margin, colour in colours:
            share = torch.exp(3.0 * margin.clamp(-2.5, 2))
            mix, total = mix + share * colour.to(tone), total + share
        return (mix / total) * (1 + 0.06 * tone)

    def outline(self, u: Tensor, v: Tensor, grow: Tensor | float = 0.0) -> Tensor:
        """Signed distance to the head's outline, enlarged by `grow`."""
        t = (v / self.b).clamp(0, 1)
        width = 1 + self.cheek * 4 * t * (1 - t) - self.taper * t * t
        return ((u / (self.a * width + grow)) ** 2 + (v / (self.b + grow)) ** 2).sqrt().sub(1) * self.a

    def mane(self, u: Tensor, v: Tensor, grow: Tensor) -> Tensor:
        """Signed distance to the head's upper outline, continued straight down."""
        return ellipse(u, v.clamp_max(0), self.a + grow, self.b + 0.02 + grow)


def background(c: Patch, f: Face, x: Tensor, y: Tensor) -> None:
    """A soft two-colour gradient with a glow behind the head."""
    hue = f.background_hue * 0.5
    value = 0.84 + 0.10 * f.background_value
    top, bottom = hsv(hue, 0.20, value), hsv(hue + 0.07, 0.32, value - 0.18)
    part = (0.5 + 0.32 * y + 0.22 * f.light * x).clamp(0, 1)
    c.picture.copy_(torch.lerp(top.expand_as(c.picture), bottom.expand_as(c.picture), part))
    glow = top + (1 - top) * 0.6
    c.fill(ellipse(x - 0.5 * f.background_glow, y + 0.25, 0.75, 0.8), glow, 0.55, 0.8)


def strands(u: Tensor, v: Tensor, f: Face) -> Tensor:
    """Light and dark locks, in [-1, 1]: straight, or undulating with `wavy`."""
    return torch.sin(24 * u + 7 * f.hair_part + f.wavy * 2.6 * torch.sin(11 * v + 5 * u))


def back_hair(c: Patch, f: Face) -> None:
    """The hair behind head and neck."""
    u, v = c.u, c.v
    side = u.abs() + f.wavy * 0.03 * torch.sin(15 * v + 3 * u)
    length = -0.02 + 0.95 * f.long
    grow = 0.06 + 0.05 * f.long + 0.05 * f.wavy
    spread = grow + (0.10 * f.wavy + 0.03) * smooth(v, 0, 0.8)
    ends = v - length + 0.45 * (side / f.a - 0.4).clamp_min(0) ** 2
    d = torch.maximum(f.mane(side, v, spread), ends) + 0.2 * f.bald
    locks = (strands(u, v, f) * 0.09 + 0.76 - 0.2 * smooth(v, 0.2, 0.9)) * (1 + 0.12 * f.light * u)
    c.fill(d, f.hair * locks, 1 - f.bald)


def body(c: Patch, f: Face, x: Tensor, y: Tensor) -> None:
    """Neck, shoulders, shirt and necklace (they follow the head only half way)."""
    x, y = x - 0.05 * f.shift_x, y - 0.02 * f.shift_y
    half = 0.20 + 0.05 * f.male + 0.06 * f.fat
    light = 1 + 0.10 * f.light * x / 0.3
    neck = torch.maximum(x.abs() - half - 0.9 * (y - 0.62).clamp_min(0) ** 2, 0.2 - y)
    c.fill(neck, shadow(f.skin, 0.10) * light)
    width = 0.74 + 0.09 * f.male + 0.05 * f.fat
    top = 0.70 + 0.16 * (x.abs() / width) ** 2 + 0.9 * (x.abs() - width * 0.85).clamp_min(0) ** 2 * 6
    trapezius = torch.minimum(top, 0.60 + (x.abs() - half) * 0.55)
    trapezius = torch.where(x.abs() > half - 0.02, trapezius, torch.full_like(trapezius, 0.60))
    shoulders = (trapezius - y) * 0.85
    c.fill(shoulders, f.skin * light)
    chin = ellipse(x - 0.06 * f.light, y - 0.50, half + 0.10, 0.19)  # its shade on the neck
    c.fill(chin, shadow(f.skin, 0.42), 0.8 * (1 - smooth(torch.minimum(neck, shoulders), -0.02, 0.02)), 0.10)
    c.fill(ellipse(x.abs() - 0.17, y - 0.90 - 0.1 * x.abs(), 0.16, 0.022), f.shade, 0.5, 0.05)  # collar bones
    shirt = hsv(f.shirt_hue * 0.5 + 0.5, 0.50, 0.62 + 0.26 * f.shirt_value)
    round_ = ellipse(x, y - 0.66, 0.36, 0.25 + 0.06 * f.neckline)
    vee = (y - 0.98 + 1.05 * x.abs()) * 0.7
    cut = torch.where(f.neckline > 0, vee, round_)
    folds = 1 + 0.06 * torch.sin(9 * x + 4 * y) + 0.10 * f.light * x - 0.25 * smooth(x.abs(), 0.5, 1.0)
    cloth = torch.maximum(shoulders - 0.015, -cut)
    c.fill(cloth, shirt * folds)
    c.fill(torch.maximum(cut.abs() - 0.022, cloth - 0.03), shirt * 0.72)
    necklace(c, f, x, y)


def necklace(c: Patch, f: Face, x: Tensor, y: Tensor) -> None:
    """Draw beads on a string with a pendant; the beads grow with the factor."""
    size = smooth(f.necklace, -0.25, 0.6)
    gold = torch.lerp(
        rgb(0.97, 0.78, 0.28).to(x), rgb(0.97, 0.96, 0.93).to(x), smooth(f.accessory_hue, -0.2, 0.2)
    )
    step = 0.082
    at = torch.round(x / step) * step
    d = ((x - at) ** 2 + (y - 0.885 + 1.6 * at * at) ** 2).sqrt() + 0.3 * (at.abs() > 0.34)
    c.fill(d - 0.052 * size, gold * 0.42, size * 0.9)
    c.fill(d - 0.040 * size, gold, size)
    drop = ellipse(x, y - 0.94, 0.052 * size + 1e-3, 0.062 * size + 1e-3)
    jewel = hsv(f.accessory_hue * 0.5 + 0.5, 0.75, 0.85)
    c.fill(drop - 0.014, gold * 0.45, size)
    c.fill(drop, jewel, size)
    c.fill(ellipse(x + 0.015, y - 0.925, 0.016, 0.016), jewel * 0.3 + 0.7, size)


def head(c: Patch, f: Face) -> None:
    """Draw ears and the shaded head."""
    u, v = c.u, c.v
    ear = ellipse(u.abs() - f.a - 0.005, v - 0.06, 0.075, 0.125)
    c.fill(ear, f.skin * 0.95)
    c.fill(ellipse(u.abs() - f.a - 0.02, v - 0.06, 0.035, 0.075), f.shade, 0.6, 0.03)
    d = f.outline(u, v)
    p, q = u / f.a, v / f.b
    second = smooth(f.double_chin, -0.8, 0.7)  # a second chin hangs below the first
    below = ellipse(u, v - f.b + 0.10, 0.27 + 0.05 * second, 0.05 + 0.155 * second)
    c.fill(below, shadow(f.skin, 0.06 + 0.5 * smooth(below, -0.10, 0.01)), second)
    light = 0.10 * f.light * p - 0.07 * q + 0.03
    edge = smooth(d, -0.20, 0.01)
    colour = f.skin * (1 + light) * (1 - edge * rgb(0.10, 0.17, 0.20).to(u))
    c.fill(d, colour)
    c.fill(torch.maximum(d.abs() - 0.010, 0.47 - v), f.line, 0.85 * second, 0.025)


def skin_details(c: Patch, f: Face) -> None:
    """Cheeks, blush, freckles and the lines that age draws."""
    u, v = c.u, c.v
    w = u.abs()
    inside = 1 - smooth(f.outline(u, v), -0.03, 0.02)
    high = smooth(f.cheekbones, -1.0, 1.1)
    # cheekbones: a lit ridge over a shaded hollow, slanting towards the ear
    slant = v + 0.45 * (w - 0.33)
    c.fill(
        ellipse(w - 0.40, slant - 0.325, 0.16, 0.05),
        shadow(f.skin, 0.40),
        high * inside * (0.95 - 0.4 * f.fat),
        0.12,
    )
    rosy = (smooth(f.blush, -0.9, 0.8) * 0.62 + 0.22 * f.made_up + 0.12 * high + 0.08).clamp(0, 0.8)
    pink = f.skin * rgb(1.0, 0.66, 0.66).to(u)
    c.fill(ellipse(w - 0.315, v - 0.225, 0.115, 0.085), pink, rosy * inside, 0.14)
    ridge = ellipse(w - 0.325, slant - 0.185, 0.085, 0.045)
    c.fill(ridge, lit(f.skin, 0.53), high * 0.9 * inside, 0.10)
    spots = torch.sin(53 * u + 19 * v + 2 * f.gaze) * torch.sin(47 * v - 23 * u)
    speckle = smooth(f.freckles, 0.6, 1.0) * (1 - smooth((w - 0.2).abs() + (v - 0.19).abs(), 0.08, 0.26))
    c.fill(0.68 - spots, f.line, 0.40 * speckle * inside, 0.3)
    # age: folds beside the mouth, crow's feet, lines on the forehead
    old = f.age * inside
    fold = (w - 0.135 - 0.42 * (v - 0.24)).abs() * 0.9 + ((v - 0.33).abs() - 0.10).clamp_min(0)
    c.fill(fold - 0.008, f.line, 0.70 * old + 0.18 * f.smiling * inside, 0.024)
    ray = ((v - 0.03) / (w - 0.30).clamp_min(0.03) / 0.45).clamp(-1, 1).round() * 0.45
    feet = torch.maximum((v - 0.03 - (w - 0.37) * ray).abs() - 0.008, (w - 0.42).abs() - 0.045)
    c.fill(feet, f.line, 0.75 * old, 0.02)
    rows = (v + 0.30 + 0.25 * u * u) / 0.068
    lines = (rows - rows.clamp(-1, 1).round()).abs() * 0.068
    c.fill(torch.maximum(lines - 0.006, w - 0.26), f.line, 0.65 * old, 0.02)


def eyes(c: Patch, f: Face) -> None:
    """Bags, lids, whites, irises, lashes."""
    u, v = c.u, c.v
    side = torch.sign(u)
    w = u.abs() - 0.215
    narrow = smooth(f.narrow_eyes, -1.1, 0.9)
    size = 1 + 0.07 * f.eye_size.clamp(-2, 2) - 0.05 * f.age
    half = 0.132 * size + 0.012 * narrow
    q = (1 - (w / half) ** 2).clamp_min(0)
    v = v - 0.02 + 0.10 * w * (1 - f.age)  # outer corners a little higher, sagging with age
    upper = -(0.094 - 0.062 * narrow) * size * q
    lower = (0.064 - 0.034 * narrow - 0.016 * f.smiling) * size * q
    # socket and lid
    made_up = f.made_up
    tint = hsv(0.80 + 0.25 * f.makeup_hue, 0.52, 0.60) * 0.75 + f.skin * 0.25
    c.fill(ellipse(w, v + 0.045, half + 0.02, 0.10), shadow(f.skin, 0.28), 0.55, 0.08)
    c.fill(ellipse(w - 0.01, v + 0.075, half, 0.07), tint, 0.62 * made_up, 0.07)
    # bags: a bluish crescent that follows the lower lid, a lit pad in it, a crease below
    bags = smooth(f.eye_bags, -1.0, 0.9)
    hollow = torch.maximum(ellipse(w, v - 0.058, 0.132, 0.110), -ellipse(w, v + 0.02, 0.17, 0.095))
    c.fill(hollow, f.skin * rgb(0.68, 0.54, 0.62).to(u), 0.80 * bags, 0.05)
    crease = torch.maximum(ellipse(w, v - 0.058, 0.135, 0.113).abs() - 0.008, 0.105 - v)
    c.fill(crease, f.line, 0.85 * bags, 0.018)
    c.fill(ellipse(w, v - 0.118, 0.065, 0.010), lit(f.skin, 0.38), 0.65 * bags, 0.03)
    # the eye itself
    opening = torch.maximum(between(v, upper, lower), w.abs() - half)
    seen = (0.5 - opening / c.pixel).clamp(0, 1)
    c.picture.lerp_((rgb(0.97, 0.96, 0.95).to(u) - 0.16 * smooth(-v, 0.02, 0.09)).expand_as(c.picture), seen)
    iris = palette(EYES, f.eye_colour)
    x = w * side - 0.022 * f.gaze
    r = (x * x + (v + 0.012) ** 2).sqrt()
    c.fill(r - 0.075, iris * 0.55, seen)
    c.fill(r - 0.060, iris * (1 + 0.5 * smooth(v, -0.05, 0.06)), seen)
    c.fill(r - 0.034, rgb(0.04, 0.03, 0.04).to(u), seen)
    c.fill(
        ((x - 0.026 * torch.sign(f.light)) ** 2 + (v + 0.040) ** 2).sqrt() - 0.020, rgb(1, 1, 1).to(u), seen
    )
    # upper lashes, thicker with make-up; a crease above; a fine lower rim
    dark = torch.lerp(f.hair_shade * 0.5 + 0.1 * f.skin, rgb(0.08, 0.05, 0.06).to(u), 0.3 + 0.7 * made_up)
    thick = 0.010 + 0.010 * made_up + 0.004 * (1 - f.male)
    rise = 0.045 * made_up * smooth(w, 0.08, 0.17)
    lash = torch.maximum(
        (v - upper + rise).abs() - thick, torch.maximum(w - 0.01 - 0.03 * made_up, -w) - half
    )
    c.fill(lash, dark)
    c.fill(torch.maximum((v - upper + 0.040).abs() - 0.005, w.abs() - half * 0.8), f.line, 0.55, 0.012)
    c.fill(torch.maximum((v - lower).abs() - 0.006, w.abs() - half), f.line, 0.55 + 0.3 * made_up, 0.008)


def brows(c: Patch, f: Face) -> None:
    """Eyebrows: a tapered stroke, flat or arched."""
    w = c.u.abs()
    e = (w - 0.085) / 0.27
    arch = smooth(f.arched_brows, -1.1, 1.0)
    peak = (0.012 + 0.078 * arch) * (1 - ((e - 0.62) / 0.62) ** 2) - 0.012 * arch
    bushy = smooth(f.brow_thickness, -1.3, 1.0)
    thick = (0.021 + 0.027 * bushy + 0.006 * f.male) * (1.05 - 0.62 * e.clamp(0, 1) ** 2)
    d = torch.maximum((c.v + 0.145 + peak).abs() - thick, (e - 0.5).abs() * 0.27 - 0.135)
    dark = torch.lerp(f.hair_shade, rgb(0.20, 0.13, 0.10).to(w), 0.35)
    c.fill(d, dark, 0.72 + 0.25 * bushy, 0.012)


def nose(c: Patch, f: Face) -> None:
    """A bridge shaded on the side away from the light, nostrils, a lit tip."""
    u, v = c.u, c.v
    big = 0.78 + 0.80 * smooth(f.nose_size, -1.4, 1.2)
    away = torch.sign(-f.light)
    bridge = ellipse(u - away * 0.052 * big, v - 0.08, 0.026 * big, 0.17)
    c.fill(bridge, f.shade, 0.55, 0.05)
    c.fill(ellipse(u, v - 0.225, 0.082 * big, 0.055 * big), f.skin * rgb(1.02, 0.94, 0.92).to(u), 0.75, 0.05)
    c.fill(ellipse(u, v - 0.250 - 0.03 * (big - 1), 0.080 * big, 0.030), f.shade, 0.85, 0.035)
    wing = ((u.abs() - 0.078 * big) ** 2 + (v - 0.232) ** 2).sqrt() - 0.026 * big
    c.fill(wing.abs() - 0.004, f.line, 0.55 * smooth(u.abs(), 0.06, 0.1), 0.02)
    c.fill(
        ellipse(u.abs() - 0.042 * big, v - 0.256, 0.021 * big, 0.011 * big), shadow(f.skin, 0.75), 0.9, 0.010
    )
    glint = ellipse(u + away * 0.018, v - 0.195, 0.022 * big, 0.024 * big)
    c.fill(glint, lit(f.skin, 0.81), 0.75, 0.03)
    c.fill(ellipse(u + away * 0.012, v - 0.05, 0.013, 0.10), lit(f.skin, 0.50), 0.5, 0.03)


def mouth(c: Patch, f: Face) -> None:
    """Lips, teeth and tongue; corners rise with the smile, jaw drops with the opening."""
    u, v = c.u, c.v - 0.395
    s = (f.smile / 1.1).clamp(-0.8, 1.3)
    full = smooth(f.lip_size, -1.2, 1.2)
    opened = smooth(f.mouth_opening, -0.5, 1.3)
    half = 0.182 + 0.040 * s + 0.012 * full
    t = u / half
    q = (1 - t * t).clamp_min(0)
    middle = (0.040 + 0.066 * s) * (0.45 - t * t)
    gap = 0.115 * opened * q.sqrt() * (0.75 + 0.25 * q)
    bow = 0.018 * (1 - smooth(t.abs(), 0.0, 0.28))
    top_in, low_in = middle - 0.35 * gap, middle + 0.65 * gap
    top = top_in - (0.022 + 0.040 * full) * q.sqrt() + bow * (0.4 + 0.6 * full)
    low = low_in + (0.030 + 0.050 * full) * q
    below = 0.45 * (0.040 + 0.066 * s) + 0.075 * opened + 0.030 + 0.050 * full  # `low` in the middle
    painted = smooth(f.lipstick, -0.8, 0.9)
    natural = f.skin * rgb(0.88, 0.60, 0.58).to(u)
    red = hsv(0.97 + 0.03 * f.makeup_hue, 0.80, 0.74 + 0.08 * f.makeup_hue)
    lips = torch.lerp(natural, red, 0.92 * painted)
    ends = t.abs() * half - half
    c.fill(ellipse(u, v - below - 0.028, 0.10, 0.018), f.shade, 0.6, 0.04)
    c.fill(torch.maximum(between(v, top, low), ends), lips * (0.93 - 0.10 * smooth(-v, -0.01, 0.04)))
    shine = ellipse(
        u + 0.02 * torch.sign(-f.light), v - (low_in + low) / 2, half * 0.42, 0.010 + 0.008 * full
    )
    c.fill(shine, lips + (1 - lips) * 0.55, 0.35 + 0.4 * painted, 0.025)
    inner = torch.maximum(between(v, top_in, low_in), ends + 0.02)
    c.fill(inner, rgb(0.30, 0.07, 0.08).to(u), smooth(opened, 0.0, 0.12))
    inside = (0.5 - inner / c.pixel).clamp(0, 1) * smooth(opened, 0.02, 0.18)
    teeth = v - (top_in + 0.018 + 0.50 * gap)
    c.fill(teeth, rgb(0.98, 0.97, 0.94).to(u), inside)
    c.fill(low_in - 0.30 * gap - v, rgb(0.82, 0.36, 0.38).to(u), inside * smooth(opened, 0.4, 0.9), 0.02)
    seam = torch.maximum((v - middle).abs() - 0.007, ends)
    c.fill(seam, lips * 0.42, 0.9 * (1 - smooth(opened, 0.0, 0.25)), 0.006)
    corner = ((u.abs() - half - 0.008) ** 2 + (v + 0.55 * (0.040 + 0.066 * s)) ** 2).sqrt() - 0.012
    c.fill(corner, f.line, 0.6, 0.025)


def beard(c: Patch, f: Face) -> None:
    """Stubble, then a full beard with a moustache, as `clean_shaven` falls."""
    u, v = c.u, c.v
    full = smooth(-f.clean_shaven, -0.35, 1.0)
    line = 0.24 - 0.55 * (u.abs() - 0.30).clamp_min(0) - 0.10 * (0.25 - u.abs()).clamp_min(0)
    d = torch.maximum(f.outline(u, v, 0.008 + 0.02 * full), line - v)
    cheek = ellipse(u.abs() - 0.19, v - 0.20, 0.17, 0.14)  # the cheeks stay free, and the mouth, the nose
    d = torch.maximum(d, 0.01 - torch.minimum(cheek, ellipse(u, v - 0.405, 0.19, 0.058)))
    grain = 0.90 + 0.10 * torch.sin(60 * u + 20 * v) * torch.sin(47 * v)
    colour = torch.lerp(f.shade, f.hair * 0.85 * grain, 0.55 + 0.45 * full)
    c.fill(d, colour, 0.92 * smooth(full, -0.1, 0.7) * (full > 0), 0.045)


def glasses(c: Patch, f: Face) -> None:
    """Round glasses with a faint reflection."""
    on = smooth(f.eyeglasses, -0.1, 0.12)
    w, v = c.u.abs(), c.v - 0.03
    ring = ellipse(w - 0.215, v, 0.185, 0.150)
    frame = hsv(f.accessory_hue * 0.5 + 0.3, 0.45, 0.22)
    c.fill(ring, rgb(0.93, 0.97, 1.0).to(w), 0.14 * on)
    bridge = torch.maximum((v + 0.03 + 0.5 * w * w).abs() - 0.014, w - 0.05)
    temple = torch.maximum((v + 0.03).abs() - 0.014, (w - 0.46).abs() - 0.075)
    c.fill(torch.minimum(torch.minimum(ring.abs() - 0.017, bridge), temple), frame, on)


def front_hair(c: Patch, f: Face) -> None:
    """Hair over the forehead and beside the face."""
    u, v = c.u, c.v
    grow = (0.07 + 0.035 * f.long + 0.05 * f.wavy) * (1 - 0.95 * f.bald)
    ripple = f.wavy * 0.028 * torch.sin(17 * v + 9 * u)
    side = u.abs() + ripple
    mane = f.mane(side, v, grow)
    t = side / f.a
    fringe = smooth(f.bangs, -0.5, 0.6)
    part = 0.16 * f.hair_part
    # the hairline: highest at the parting, down to the temples; bangs lower it, baldness raises it
    lift = 0.13 * (1 - smooth((u - part).abs(), 0.0, 0.34)) * (1 - fringe)
    high = -0.39 - 0.36 * smooth(f.baldness, -1.3, 0.1) + (0.16 + 0.02 * torch.sin(30 * u)) * fringe
    hairline = high - lift + (0.36 - 0.16 * fringe) * t**4
    # beside the face, long hair comes down to its full length
    reach = 0.84 * f.long - 1.2 * (t - 1.12) ** 2
    inner = f.a * (0.95 - 0.11 * smooth(v, -0.3, 0.2) * f.long)
    lock = torch.maximum(torch.maximum(inner - side, v - reach), -0.45 - v)
    d = torch.maximum(mane, torch.minimum(v - hairline, lock))
    shine = 1 - smooth((v + 0.57 - 0.45 * u * u).abs(), 0.0, 0.15)
    wave = strands(u - part * (1 + v), v, f)
    tone = 0.94 + 0.09 * wave + 0.13 * f.light * u - 0.14 * smooth(mane, -0.10, 0.0)
    inside = 1 - smooth(f.outline(u, v), -0.03, 0.0)
    c.fill(d - 0.018, f.shade, 0.55 * inside * (1 - f.bald), 0.06)  # the hair's shade on the forehead
    colour = f.hair * tone + (f.hair_light - f.hair) * shine * (0.55 + 0.35 * wave)
    c.fill(d, colour, 1 - 0.92 * f.bald)


def earrings(c: Patch, f: Face) -> None:
    """Hoops, or pearls on a stud; they grow with the factor."""
    size = smooth(f.earrings, -0.3, 0.7)
    w = c.u.abs() - f.a - 0.035
    pearl = smooth(f.accessory_hue, -0.1, 0.1)
    gold = rgb(0.98, 0.80, 0.28).to(w)
    hoop = (w * w + (c.v - 0.275) ** 2).sqrt()
    ring = (hoop - 0.075 * size).abs() - 0.022 * size
    c.fill(ring - 0.012, gold * 0.45, size * (1 - pearl))
    c.fill(ring, gold * (1 + 0.2 * (w < 0)), size * (1 - pearl))
    white = torch.lerp(rgb(0.97, 0.96, 0.94).to(w), hsv(f.makeup_hue * 0.5 + 0.5, 0.75, 0.9), 0.35)
    drop = (w * w + ((c.v - 0.27) * 0.8) ** 2).sqrt() - 0.072 * size
    c.fill(drop - 0.014, white * 0.4, size * pearl)
    c.fill(drop, white, size * pearl)
    c.fill((w + 0.02).abs() + (c.v - 0.245).abs() - 0.02, rgb(1, 1, 1).to(w), size * pearl, 0.02)


def hat(c: Patch, f: Face) -> None:
    """A woollen hat, a sun hat or a cap; it slides on as the factor crosses zero."""
    on = smooth(f.hat, -0.08, 0.08)
    u, v = c.u, c.v + 0.35 * (1 - on)
    colour = hsv(f.accessory_hue * 0.5 + 0.45, 0.62, 0.68)
    trim = hsv(f.accessory_hue * 0.5 + 0.95, 0.55, 0.80)
    wool, sun = f.hat_style < -0.35, f.hat_style > 0.35
    light = 1 + 0.16 * f.light * u - 0.25 * smooth(u.abs(), 0.3, 0.75)
    rim = -0.36 + 0.16 * u * u
    dome = torch.maximum(ellipse(u, v + 0.30, f.a + 0.11, 0.55), v - rim)
    knit = 0.95 + 0.06 * torch.sin(46 * u)
    c.fill(dome, colour * light * torch.where(wool, knit, torch.ones_like(knit)), on)
    c.fill(torch.maximum((u - 0.25 * f.light).abs() - 0.10, dome + 0.05), colour * 1.35, 0.28 * on, 0.15)
    # wool: a folded cuff and a bobble; sun: a ribbon and a broad brim; cap: a peak
    cuff = torch.maximum((v + 0.36 - 0.16 * u * u).abs() - 0.085, u.abs() - f.a - 0.115)
    c.fill(cuff, trim * light * knit, on * wool)
    c.fill((u * u + (v + 0.86) ** 2).sqrt() - 0.10, trim, on * wool, 0.03)
    c.fill(torch.maximum((v + 0.46 - 0.12 * u * u).abs() - 0.06, dome), trim * light, on * sun)
    c.fill(ellipse(u, v + 0.35 - 0.05 * u * u, f.a + 0.33, 0.085), colour * 1.08 * light, on * sun)
    c.fill(ellipse(u, v + 0.295 - 0.05 * u * u, f.a + 0.25, 0.025), colour * 0.6, 0.8 * on * sun, 0.02)
    cap = ~(wool | sun)
    peak = ellipse(u - 0.10 * f.light, v + 0.35 - 0.30 * u * u, f.a + 0.02, 0.095)
    c.fill(peak, trim * (0.86 + 0.9 * (v + 0.36)) * light, on * cap)
    c.fill((u * u + (v + 0.64) ** 2).sqrt() - 0.09, trim, on * cap)


def render(factors: Tensor, nuisances: Tensor, image_size: int) -> Tensor:
    """Draw one chunk of faces.

    Parameters
    ----------
    factors : torch.Tensor
        float32 [B, len(FACTORS)].
    nuisances : torch.Tensor
        float32 [B, len(NUISANCES)], in [-1, 1].
    image_size : int
        Edge S of the square pictures, in pixels.

    Returns
    -------
    torch.Tensor
        uint8 [B, 3, S, S] on the device of `factors`.
    """
    f, s = Face(factors, nuisances), image_size
    line = (torch.arange(s, device=factors.device, dtype=torch.float32) + 0.5) * (2 / s) - 1
    x, y = line.view(1, 1, 1, s).expand(1, 1, s, s), line.view(1, 1, s, 1).expand(1, 1, s, s)
    # head coordinates: shift, then tilt about the neck, then scale
    zoom = 1.05 + 0.06 * f.scale
    angle = 0.10 * f.tilt
    x0, y0 = x - 0.05 * f.shift_x, y - 0.45
    u = (x0 * torch.cos(angle) + y0 * torch.sin(angle)) / zoom
    v = (y0 * torch.cos(angle) - x0 * torch.sin(angle)) / zoom + 0.45 + 0.10 - 0.03 * f.shift_y
    picture = torch.empty(len(factors), 3, s, s, device=factors.device)
    c = Patch(picture, u, v, (2 / s) / zoom)
    yaw, pitch = 0.05 * f.yaw, 0.025 * f.pitch

    background(c, f, x, y)
    back_hair(c, f)
    low = round(s * 0.55)
    body(Patch(picture[..., low:, :], u, v, c.pixel), f, x[..., low:, :], y[..., low:, :])
    head(c.crop(0.80, -0.80, 0.80), f)
    skin_details(c.crop(0.75, -0.50, 0.62).moved(yaw, pitch), f)
    beard(c.crop(0.75, 0.0, 0.80).moved(0.3 * yaw, pitch), f)
    eyes(c.crop(0.48, -0.22, 0.28).moved(yaw, pitch), f)
    brows(c.crop(0.45, -0.32, 0.0).moved(yaw, pitch), f)
    nose(c.crop(0.25, -0.20, 0.36).moved(1.5 * yaw, pitch), f)
    mouth(c.crop(0.36, 0.24, 0.70).moved(1.1 * yaw, pitch), f)
    front_hair(c.moved(0.25 * yaw, 0), f)
    glasses(c.crop(0.62, -0.20, 0.28).moved(yaw, pitch), f)
    earrings(c.crop(0.88, 0.10, 0.44), f)
    hat(c.crop(1.0, -1.30, 0.05).moved(0.25 * yaw, 0), f)

    glow = (1 + 0.05 * f.brightness) * (1 + f.warmth * rgb(0.03, 0.0, -0.03).to(picture))
    return (picture * glow).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
