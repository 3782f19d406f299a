"""A figure as a file: texts are drawn as they are, whatever somebody has named a class or a row."""

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskdisc.names import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LETTERS, MOST_LINES = 120, 8
"""Of a title, a label or an entry of a legend."""

MOST_AT_TICKS = 40
"""Letters of a name at a tick, for which plots make room."""


def png(figure: "Figure", dpi: int) -> bytes:
    """A `.png` of a figure, whose texts may hold names of any letters and length.

    Args:
        figure: Is changed where its texts must be.
        dpi: Pixels to the inch.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FuncFormatter):  # of names: it writes them when it is drawn
                formatter.func = _shortening(formatter.func)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name may hold a $
        lines = text.get_text().split("\n")[:MOST_LINES]
        text.set_text("\n".join(shortened(line, MOST_LETTERS) for line in lines))
    content = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that the font lacks are boxes, and of names that take all room little is seen of
        # the plot; a user can do nothing about either here.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def _shortening(name_at: Callable[..., str]) -> Callable[..., str]:
    return lambda value, position=None: shortened(name_at(value, position), MOST_AT_TICKS)
