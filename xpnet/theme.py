"""Style that the package's HTML pages share: colors for light and dark, and text."""

from importlib import resources

__all__ = ["style_sheet"]


def style_sheet() -> str:
    """Return the style sheet, as CSS."""
    return resources.files("xpnet").joinpath("theme.css").read_text("utf-8")
