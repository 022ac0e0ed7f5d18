"""``python -m reformer_bench`` is the command line."""

from reformer_bench.cli.main import main

main()
