"""`python -m octoscale`, and so `torchrun -m octoscale`: the command line."""

from octoscale.cli.main import main

if __name__ == "__main__":
    main()
