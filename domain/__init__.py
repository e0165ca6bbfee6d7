"""Pure decisions: every stream's events, state, `evolve` and `decide`. No I/O, no clock, no randomness that is not passed in."""
