"""Tables and figures of docs/findings.md, from stored records."""
