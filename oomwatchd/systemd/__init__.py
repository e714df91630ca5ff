"""What we say to systemd and what we ask of it."""
