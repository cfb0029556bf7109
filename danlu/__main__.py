"""`python -m danlu` is `danlu`; launchers such as accelerate start it this way."""

from danlu.cli import main

main()
