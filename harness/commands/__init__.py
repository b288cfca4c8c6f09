"""The words of the `harness` command: one file each, with HELP, `arguments` and `run`."""
