"""The page about one model on one data set."""
