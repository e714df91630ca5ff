"""One module per kernel interface; parsing apart from reading."""
