"""Running forms: which components of a character a fast hand writes otherwise, and how; one room within the pen's."""

from hcr.synth.cursive.sites import around, knots_of, sheltered, sites_of, with_running_forms

__all__ = ["around", "knots_of", "sheltered", "sites_of", "with_running_forms"]
