"""How many pods: decided from what the pods report, as a pure function of a history.

history.py   what was reported, second by second, for as long as a decision looks back
needs.py     one moment -> how many pods each target asks for
decide.py    a history -> how many pods, and why
cost.py      which pods a scale-in takes: those with the least to leave behind
status.py    the condition ScalingActive, and the words of the phase
scaler.py    the only file here that acts: keeps histories, marks the pods that go, tells events
"""
