"""Tests of the simulated installations."""
