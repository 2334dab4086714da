"""Running script: which components of a character fast writers write in another form, and how."""

from hcr.synth.cursive.sites import around, knots_of, sheltered, sites_of, with_running_forms

__all__ = ["around", "knots_of", "sheltered", "sites_of", "with_running_forms"]
