"""The subcommands of ``likeness``, a file each: ``add`` adds its parser, with what it does as ``do``.

Only the standard library, and what is as light, at the top of each: ``--help`` must answer at once.
"""
