"""The paper's five findings, from stored records: see docs/findings.md."""
