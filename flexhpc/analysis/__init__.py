"""From the store to what a person reads: status, results table, figures, report."""
