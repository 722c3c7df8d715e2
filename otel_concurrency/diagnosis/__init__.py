"""What is wrong, in words: pure rules over a window of numbers, each of which returns a finding.

Nothing here looks at the program: `instrumentors/diagnosis.py` gathers the numbers, `signals/diagnosis.py`
tells what was found. It knows nothing of OpenTelemetry.
"""
