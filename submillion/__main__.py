"""`python -m submillion` is the command line."""

from submillion.cli import main

if __name__ == "__main__":
    main()
