"""One fact of the operating system each; what to do with them is decided elsewhere."""
