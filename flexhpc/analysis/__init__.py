"""Analysis of stored results: status, results table, figures and report."""
