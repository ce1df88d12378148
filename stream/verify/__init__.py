"""Check the tables against an independent recomputation from the input file."""

from stream.verify.compare import Mismatch, Report, TableReport, compare
from stream.verify.recompute import Expected, ExpectedRows, expected_rows, recompute

__all__ = [
    "Expected",
    "ExpectedRows",
    "Mismatch",
    "Report",
    "TableReport",
    "compare",
    "expected_rows",
    "recompute",
]
