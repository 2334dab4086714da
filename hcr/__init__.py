"""Handwritten Chinese character recognition: read, pack, feed, train, judge, serve.

A character is born as ink on paper in somebody's file, becomes S×S grey bytes once, and stays uint8 with 255 = paper
through every room until it is inside the model.
"""

__version__ = "0.1.0"
