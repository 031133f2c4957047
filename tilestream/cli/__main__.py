"""`python -m tilestream.cli`, for places where scripts are not on the path."""

from tilestream.cli.app import main

main()
