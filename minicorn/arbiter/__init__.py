"""The arbiter: the process that binds, forks, listens to its children and never serves."""
