"""`python -m hcr predict …`: the same commands as `hcr`."""

from hcr.cli.main import main

main(prog_name="python -m hcr")
