"""`python -m taskdisc` is the command `taskdisc`."""

from taskdisc.cli import main

main()
