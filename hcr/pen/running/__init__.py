"""Running forms: which components of a character a fast hand writes otherwise, and how; one room within the pen's."""

from hcr.pen.running.roofs import sheltered
from hcr.pen.running.sites import around, knots_of, sites_of, with_running_forms

__all__ = ["around", "knots_of", "sheltered", "sites_of", "with_running_forms"]
