"""What a batch came to, for people: Markdown, and a page of HTML that needs nothing else."""

from dspyq.cli.batch.report.markdown import to_markdown
from dspyq.cli.batch.report.page import to_html

__all__ = ["to_html", "to_markdown"]
