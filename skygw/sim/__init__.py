"""Simulated installations: devices that behave, faults to script, a journal that judges what happened."""
