"""oomwatchd decides who lives and who dies when Linux runs out of memory."""

__version__ = "0.1.0"
