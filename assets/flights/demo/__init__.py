"""`python -m assets.flights.demo`. A package, because each process that trains a model imports the main module again,
and warns of it, unless that is a `__main__`.
"""
