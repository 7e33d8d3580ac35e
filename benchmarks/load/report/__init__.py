"""Results as tables, plots, Markdown and pages."""
