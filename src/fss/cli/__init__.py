"""The ``fss`` command: one thin file per sub-command."""
