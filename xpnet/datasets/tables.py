"""Tables in text files: CSV with numbers, and labels in one of the columns."""

import csv
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.datasets.idx import DatasetError

__all__ = ["read_table"]

LABEL_NAMES = ("label", "labels", "class", "target", "t", "y")
MISSING = ("", "na", "n/a", "nan", "null", "none", "?")


def read_table(
    file: Path, label: str | int | None = None, *, has_labels: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a CSV file: the numbers as float32 (N, D), and the column of labels.

    The separator is a comma, a semicolon or a tab, whichever the first line has most of. The first line is a
    header if it names the column of labels, or has no number besides the label.

    Parameters
    ----------
    file : Path
        A text file in UTF-8.
    label : str or int, optional
        The column with the labels: its name in the header, or its number, 0 for the first and -1 for the last. By
        default the column that the header calls label, labels, class, target, t or y.
    has_labels : bool, default True
        If False, all columns are numbers.

    Returns
    -------
    values, labels
        Labels are int64 if all of them are integers, otherwise strings; None without labels.

    Raises
    ------
    DatasetError
        If a line has too many or too few values, one that is missing or no finite number, or if the column of labels is
        not found. The message names the line.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter=max(",;\t", key=first.count), strict=True)
            return _Table(file, _rows(reader), label, has_labels).read()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: no text in UTF-8: {error.reason} at byte {error.start:,}") from error
    except csv.Error as error:
        raise DatasetError(f"{file}: line {reader.line_num}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror or error}") from error


def _rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with their line numbers, without empty lines."""
    return ((reader.line_num, row) for row in reader if row)


class _Table:
    """The state of reading a table: its first row decides what the columns are."""

    def __init__(
        self, file: Path, rows: Iterator[tuple[int, list[str]]], label: str | int | None, has_labels: bool
    ) -> None:
        self.file, self.rows = file, rows
        self.line, self.first = next(rows, (1, []))
        if not self.first:
            raise DatasetError(f"{file}: no lines")
        names = [name.strip() for name in self.first]
        self.column = self._label_column(names, label) if has_labels else None
        self.header = names if self._is_header(names, label) else None

    def read(self) -> tuple[np.ndarray, np.ndarray | None]:
        width, column = len(self.first), self.column
        values, lines, labels = array("f"), array("q"), list[str]()
        for line, row in self.rows if self.header else self._with_first():
            if len(row) != width:
                raise DatasetError(f"{self.file}: line {line}: {len(row)} values, where the first line has {width}")
            if column is not None:
                labels.append(row.pop(column).strip())
                if labels[-1].lower() in MISSING:
                    raise self._error(line, column, labels[-1])
            try:
                values.extend(map(float, row))
            except ValueError:
                number = next(i for i, cell in enumerate(row) if not _is_number(cell))
                raise self._error(line, self._position(number), row[number]) from None
            lines.append(line)
        if not lines:
            raise DatasetError(f"{self.file}: no lines behind the header")
        x = np.frombuffer(values, "float32").reshape(len(lines), -1)
        if x.shape[1] == 0:
            raise DatasetError(f"{self.file}: no column besides the labels")
        finite = np.isfinite(x).all(axis=1)
        if not finite.all():
            n = int(finite.argmin())
            number = int(np.isfinite(x[n]).argmin())
            raise self._error(lines[n], self._position(number), str(x[n, number]))
        return x, None if column is None else self._as_labels(labels, lines)

    def _with_first(self) -> Iterator[tuple[int, list[str]]]:
        yield self.line, list(self.first)
        yield from self.rows

    def _label_column(self, names: list[str], label: str | int | None) -> int:
        listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        if isinstance(label, int):
            if not -len(names) <= label < len(names):
                raise DatasetError(f"{self.file}: no column {label}, the first line has {len(names)} values")
            return label % len(names)
        wanted = LABEL_NAMES if label is None else (label,)
        found = [i for i, name in enumerate(names) if name in wanted or (label is None and name.lower() in wanted)]
        if len(found) != 1:
            which = f"a column {label!r}" if label is not None else f"a column of labels ({', '.join(LABEL_NAMES)})"
            raise DatasetError(
                f"{self.file}: the first line names {which} {'more than once' if found else 'nowhere'}: {listed}; pass "
                f"label=, its name or its number (0 is the first column, -1 the last)"
            )
        return found[0]

    def _is_header(self, names: list[str], label: str | int | None) -> bool:
        if self.column is not None and (not isinstance(label, int) or names[self.column].lower() in LABEL_NAMES):
            return True  # the label's name was found in it
        # One number is enough for data: a misspelt value in the first line is an error, not a header.
        cells = [name for i, name in enumerate(names) if i != self.column]
        return not any(map(_is_number, cells)) and not all(cell.lower() in MISSING for cell in cells)

    def _position(self, number: int) -> int:
        """Return the column of a value, given its number among the values without the label."""
        return number + (self.column is not None and number >= self.column)

    def _error(self, line: int, column: int, cell: str) -> DatasetError:
        what = "a missing value" if cell.strip().lower() in MISSING else f"{cell.strip()[:40]!r} is no finite number"
        where = f"column {column}" + (f" ({self.header[column]})" if self.header else "")
        return DatasetError(f"{self.file}: line {line}, {where}: {what}")

    def _as_labels(self, labels: list[str], lines: Sequence[int]) -> np.ndarray:
        texts = np.array(labels)
        try:
            numbers = texts.astype("float64")
        except ValueError:
            return texts
        whole = np.isfinite(numbers) & (numbers == np.rint(numbers)) & (abs(numbers) < 2**53)
        if not whole.all():
            n = int(whole.argmin())
            raise DatasetError(
                f"{self.file}: line {lines[n]}: the label {labels[n]} is no class; labels are integers or names"
            )
        return numbers.astype("int64")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
