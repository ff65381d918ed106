"""Reports for people, in Markdown or as a self-contained HTML page: the parts that all reports share."""
