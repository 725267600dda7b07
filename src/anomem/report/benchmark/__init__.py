"""Tables, comparisons and one page from benchmark runs."""
