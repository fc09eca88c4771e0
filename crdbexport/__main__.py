"""`python -m crdbexport` is the command `crdbexport`."""

from crdbexport.cli import main

main()
