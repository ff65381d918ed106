"""Reports of an experiment for people: Markdown, or a self-contained HTML page."""

from dspyq.cli.experiment_report.gather import gather
from dspyq.cli.experiment_report.markdown import to_markdown
from dspyq.cli.experiment_report.page import to_html

__all__ = ["gather", "to_html", "to_markdown"]
