"""What oomwatchd costs and how fast it is, beside C programs and other daemons; see bench/run."""
