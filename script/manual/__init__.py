"""The manual: what is written in one place and shown in several.  Run by script/make-docs.

The keys of the file, the commands with their options, the exit statuses and the metrics are told in
the code.  From there come the tables in the README, the man pages, the schema for editors and the
shells' completions; prose is in the README and in the pages' sources in this directory.
"""
