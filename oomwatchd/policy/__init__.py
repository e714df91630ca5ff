"""Pure decisions: records in, records out, no I/O and no clock."""
