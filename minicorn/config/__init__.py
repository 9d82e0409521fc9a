"""Where settings come from: the table, the command line's values, files, and what gunicorn has."""
