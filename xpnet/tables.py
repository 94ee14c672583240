"""Plain-text tables, for reports without dependencies."""

from collections.abc import Iterable, Sequence

__all__ = ["format_table"]


def format_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, align: str, footer: Sequence[str] | None = None
) -> str:
    """Format rows of text as a table with a header and, optionally, a footer.

    Parameters
    ----------
    header, footer : sequence of str
        One text per column.
    rows : iterable of sequences of str
        Cells of each row.
    align : str
        One of ``<``, ``^``, ``>`` per column.
    """
    body = [list(row) for row in rows]
    lines = [list(header), *body, *([list(footer)] if footer else [])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(f"{c:{a}{w}}" for c, a, w in zip(line, align, widths, strict=True)).rstrip() for line in lines]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    text.insert(1, rule)
    if footer:
        text.insert(-1, rule)
    return "\n".join(text)
