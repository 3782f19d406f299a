"""A small CelebA: drawn faces in the published files, with attributes that are to be seen."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 218, 178

ATTRIBUTES = [
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
    "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair",
    "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair",
    "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
]  # fmt: skip

SOURCES_EIGHT = [
    "Arched_Eyebrows", "Big_Lips", "Big_Nose", "Black_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Necklace", "Young",
]  # fmt: skip
"""All of them are to be seen; of the others Eyeglasses, Wearing_Lipstick and Rosy_Cheeks are."""

SKIN, PALE, BLACK, BROWN, RED, GOLD = (
    (224, 172, 140), (245, 220, 205), (20, 18, 22), (140, 90, 50), (190, 30, 50), (250, 215, 60),
)  # fmt: skip


def draw_faces(
    root: Path, n: int, seed: int = 0, shapes: dict[int, tuple[int, int]] | None = None
) -> Path:
    """Write `n` faces as CelebA publishes them into `root`/celeba, of which 1 in 10 are val, test.

    Args:
        root: The folder.
        n: How many faces.
        seed: Decides attributes and how each face stands.
        shapes: Height and width of faces that have others than 218 and 178, by position.
    """
    rng = np.random.default_rng(seed)
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    values = attributes(n, rng)
    for number, row in enumerate(values):
        face = _face(dict(zip(ATTRIBUTES, row.tolist(), strict=True)), rng)
        if shapes and number in shapes:
            height, width = shapes[number]
            face = face.resize((width, height))
        face.save(folder / "img_align_celeba" / name_of(number), quality=90)
    write_lists(folder, values)
    return root


def name_of(number: int) -> str:
    return f"{number + 1:06}.jpg"


def attributes(n: int, rng: np.random.Generator) -> np.ndarray:
    """Who has what, bool [n, 40]: some follow from others, as they do in photographs."""
    found = dict(zip(ATTRIBUTES, rng.random((len(ATTRIBUTES), n)) < 0.35, strict=True))
    found["Male"] = rng.random(n) < 0.42
    found["Wearing_Lipstick"] = ~found["Male"] & (rng.random(n) < 0.8)
    found["Heavy_Makeup"] = found["Wearing_Lipstick"] & (rng.random(n) < 0.8)
    found["Wearing_Earrings"] = ~found["Male"] & (rng.random(n) < 0.5)
    found["No_Beard"] = ~found["Male"] | (rng.random(n) < 0.6)
    found["Goatee"] = ~found["No_Beard"] & (rng.random(n) < 0.5)
    found["Young"] = rng.random(n) < 0.7
    found["Gray_Hair"] = ~found["Young"] & (rng.random(n) < 0.5)
    found["Black_Hair"] &= ~found["Gray_Hair"]
    return np.stack(list(found.values()), axis=1)


def write_lists(folder: Path, values: np.ndarray) -> None:
    """The lists of attributes, with the published blanks, and of the partition."""
    lines = [str(len(values)), " ".join(ATTRIBUTES) + " "]
    for number, row in enumerate(values):
        lines.append(f"{name_of(number)} " + "".join(" 1 " if v else "-1 " for v in row))
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    parts = [{8: 1, 9: 2}.get(number % 10, 0) for number in range(len(values))]
    partition = [f"{name_of(number)} {part}\n" for number, part in enumerate(parts)]
    (folder / "list_eval_partition.txt").write_text("".join(partition))


def _face(has: dict[str, bool], rng: np.random.Generator) -> Image.Image:
    background = tuple(int(v) for v in rng.integers(90, 220, 3))
    face = Image.new("RGB", (WIDTH, HEIGHT), background)
    draw = ImageDraw.Draw(face)
    x, y = WIDTH // 2 + int(rng.integers(-5, 6)), 112 + int(rng.integers(-5, 6))
    hair = BLACK if has["Black_Hair"] else (170, 170, 170) if has["Gray_Hair"] else BROWN
    skin = PALE if has["Pale_Skin"] else SKIN
    draw.ellipse((x - 62, y - 88, x + 62, y + 60), fill=hair)
    draw.rectangle((x - 22, y + 50, x + 22, HEIGHT), fill=skin)
    draw.ellipse((x - 48, y - 62, x + 48, y + 72), fill=skin)
    for side in (-1, 1):
        eye, ear = x + 20 * side, x + 50 * side
        draw.ellipse((eye - 9, y - 18, eye + 9, y - 8), fill="white")
        draw.ellipse((eye - 4, y - 18, eye + 4, y - 8), fill=BLACK)
        if has["Arched_Eyebrows"]:
            draw.arc((eye - 14, y - 42, eye + 14, y - 14), 190, 350, fill=BLACK, width=4)
        else:
            draw.line((eye - 13, y - 27, eye + 13, y - 27), fill=BLACK, width=4)
        if has["Eyeglasses"]:
            draw.rectangle((eye - 16, y - 25, eye + 16, y - 1), outline=BLACK, width=3)
        if has["Wearing_Earrings"]:
            draw.ellipse((ear - 8, y + 16, ear + 8, y + 38), fill=GOLD)
        if has["Rosy_Cheeks"]:
            draw.ellipse((eye - 10, y + 8, eye + 10, y + 24), fill=(240, 130, 130))
    nose = 16 if has["Big_Nose"] else 6
    draw.polygon([(x, y - 10), (x - nose, y + 22), (x + nose, y + 22)], fill=(190, 130, 100))
    lips = 12 if has["Big_Lips"] else 4
    colour = RED if has["Wearing_Lipstick"] else (170, 90, 90)
    draw.ellipse((x - 22, y + 42 - lips, x + 22, y + 42 + lips), fill=colour)
    if not has["Young"]:
        for height in (-54, -47, -40):
            draw.line((x - 26, y + height, x + 26, y + height), fill=(120, 80, 60), width=2)
    if has["Wearing_Hat"]:
        draw.rectangle((x - 75, y - 72, x + 75, y - 56), fill=(30, 60, 160))
        draw.rectangle((x - 48, 0, x + 48, y - 60), fill=(30, 60, 160))
    if has["Wearing_Necklace"]:
        draw.arc((x - 40, y + 50, x + 40, y + 96), 10, 170, fill=GOLD, width=6)
    pixels = np.asarray(face) + rng.normal(0, 8, (HEIGHT, WIDTH, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
