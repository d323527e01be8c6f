"""The main job, shown: a gateway with simulated installations, and every promise put to the test in front of you."""
