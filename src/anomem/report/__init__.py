"""Reports: self-contained HTML pages, tables and plots."""
