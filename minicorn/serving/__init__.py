"""A worker: from a socket that is accepted to the application and back."""
