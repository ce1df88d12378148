"""The weekly report: what PostgreSQL knows as of a week, as one data file, and its rendering."""

from stream.report.data import SCHEMA, collect, write_data
from stream.report.rendering import Renderer, ReportError, render
from stream.report.week import Week

__all__ = ["SCHEMA", "Renderer", "ReportError", "Week", "collect", "render", "write_data"]
