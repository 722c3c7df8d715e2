"""Event loops: their time, their exceptions, their stalls, and the thread that watches them."""
