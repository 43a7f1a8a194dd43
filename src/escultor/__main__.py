"""`python -m escultor`, and `torchrun … -m escultor`."""

from escultor.cli.app import main

if __name__ == "__main__":
    main()
