"""Methods that score by the error of a reconstruction: PMB and MemAE."""
