"""What the pytest plugin does once it is asked: watches event loops while tests run, and judges."""
