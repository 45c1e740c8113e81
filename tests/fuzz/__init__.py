"""Damaged GeoTIFFs: a campaign that stays."""
