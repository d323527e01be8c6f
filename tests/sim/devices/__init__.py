"""Tests of the simulated hardware, one device at a time."""
