"""The benchmark report: pytest-benchmark's JSON in; tables for the README and a picture out."""

from __future__ import annotations

from report.markdown import fill_tables, render_markdown
from report.picture import PICTURE_FORMATS, draw_picture
from report.reading import Unreadable, read

__all__ = ["PICTURE_FORMATS", "Unreadable", "draw_picture", "fill_tables", "read", "render_markdown"]
