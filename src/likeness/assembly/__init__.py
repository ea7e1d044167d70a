"""From a checked config to objects, and through them to results: the one room that knows every other.

A run goes through ``extracting``, ``splitting``, ``modules``, ``training``, ``baselines``, ``scoring``, ``reporting``.
"""
