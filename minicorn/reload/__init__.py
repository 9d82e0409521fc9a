"""--reload: what has changed, what must be imported again, and what a browser sees meanwhile."""
