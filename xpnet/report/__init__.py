"""Report of a training run: one HTML page, from the files in the run's folder."""

from xpnet.report.page import write_report

__all__ = ["write_report"]
