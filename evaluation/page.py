# SPDX-License-Identifier: Apache-2.0
"""What our pages share: template, style, words for values, and pictures within them.

The style is in page.html.j2, which the templates of the pages extend. A page is a
single file without scripts, light or dark as the reader's system is.
"""

import base64
from pathlib import Path
from typing import Any

import jinja2

from evaluation import figures
from system import console

_NBSP = "\N{NO-BREAK SPACE}"


def render(template: str, **variables: Any) -> str:
    """Fills in a template of this folder."""
    return _environment().get_template(template).render(**variables)


def svg_uri(figure: Any) -> str:
    """A figure as the address of a picture, with colours for light and for dark."""
    return _data_uri(figures.svg(figure), "svg+xml")


def png_uri(picture: Any) -> str:
    """Pixels, uint8 [H, W] or [H, W, 3], as the address of a picture."""
    return _data_uri(figures.png(picture), "png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "duration": duration,
        "percent": percent,
        "probability": probability,
        "setting": setting,
    }
    return environment


def count(number: int) -> str:
    """10000 → 10,000."""
    return f"{number:,}"


def percent(share: float | None) -> str:
    """0.9959 → 99.59 %; "–" if there is no figure."""
    if share is None:
        return "–"
    return f"{100 * share:.2f}{_NBSP}%"


def probability(value: float) -> str:
    """0.986 → 98.6 %, but nothing is rounded to 0 or 100."""
    if 0 < value < 0.0005:
        return f"<0.1{_NBSP}%"
    if 0.9995 < value < 1:
        return f">99.9{_NBSP}%"
    return f"{100 * value:.1f}{_NBSP}%"


def duration(seconds: float) -> str:
    """572.4 → 9 min 32 s."""
    return console.duration(seconds, _NBSP)


def setting(value: Any) -> str:
    """A flag's value as it is typed; "none" for a list without entries."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "–" if value is None else str(value)
