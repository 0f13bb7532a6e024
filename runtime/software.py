"""Which fedge this is.

It stands here, where pyproject.toml takes it from: to read it from what is installed (importlib.metadata) would have
every agent load a parser for mail and hold it.
"""

VERSION = "0.1.0"
