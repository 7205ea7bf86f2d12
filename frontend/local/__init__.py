"""`python -m frontend.local`: Triton and the frontend on this machine, started and stopped together."""
