"""The simulated hardware of a site: each device takes its time, can be stopped half way, and may lie."""
