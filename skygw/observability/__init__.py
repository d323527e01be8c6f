"""What the gateway says about itself: log lines, numbers and traces, each name written down once."""
