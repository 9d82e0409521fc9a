"""The arbiter's mind: what it knows of its workers, and what it wants done. Pure: values in, values out."""
