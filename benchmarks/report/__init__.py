"""The benchmark report: pytest-benchmark's JSON in; a web page, a table for the README and a picture out."""

from __future__ import annotations

from report.markdown import fill_tables, render_markdown
from report.page import render_page
from report.picture import PICTURE_FORMATS, draw_picture
from report.reading import Unreadable, read

__all__ = ["PICTURE_FORMATS", "Unreadable", "draw_picture", "fill_tables", "read", "render_markdown", "render_page"]
