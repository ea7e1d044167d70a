"""What a config may say, checked before anything is opened.

``schema`` has the options, ``composing`` gets them from a command line, ``checking`` looks at all of them at once.

Only standard-library and Hydra imports at the top: ``--help`` and ``--cfg job`` must answer at once.
"""
