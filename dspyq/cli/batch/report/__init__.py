"""Reports of a batch for people: Markdown, or a self-contained HTML page."""

from dspyq.cli.batch.report.markdown import to_markdown
from dspyq.cli.batch.report.page import to_html

__all__ = ["to_html", "to_markdown"]
