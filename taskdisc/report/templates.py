"""The templates of the pages, and how figures are written in them."""

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from taskdisc.discovery.classes import RECOVERED, match_text
from taskdisc.report import plots


def templates() -> Environment:
    """The templates of this package; whatever they are given is escaped."""
    environment = Environment(
        loader=PackageLoader("taskdisc.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": plots.number,
        "p": p_text,
        "duration": _duration,
        "match": match_text,
    }
    environment.globals["policy"] = policy
    environment.globals["enough"] = f"{RECOVERED:.0%}".replace("%", " %")
    return environment


def policy(style: str, script: str = "") -> str:
    """A content security policy: pictures within the page, this style sheet, this script alone.

    Args:
        style: What stands between the tags of its only style sheet.
        script: The same of its only script; without one, none runs.
    """
    rules = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    rules += [f"script-src {_hash(script)}"] if script else []
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    """What a policy calls a style sheet or script that it lets in."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def source(environment: Environment, name: str) -> Markup:
    """A style sheet or script of this package, as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def p_text(value: float) -> str:
    """A p value; small ones by their power of ten."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _duration(seconds: float) -> str:
    """Wall time in the two units that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
