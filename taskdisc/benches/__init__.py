"""What `taskdisc bench` measures: a file for each of its commands."""
