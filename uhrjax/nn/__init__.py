"""Layers that two or more backbones or methods share."""
