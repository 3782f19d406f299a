"""Names that somebody else may have given, as a terminal or a picture can show them."""

LONGEST = 28
"""Letters of a name in a picture."""


def printable(text: str) -> str:
    """A text on one line without signs that a terminal obeys or that turn what follows around."""
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in text
    )


def shortened(name: str, most: int = LONGEST) -> str:
    """A name as a picture has room for it, on one line of at most `most` letters."""
    name = " ".join(printable(name[: 2 * most]).split())
    return name if len(name) <= most else f"{name[: most - 1]}…"
