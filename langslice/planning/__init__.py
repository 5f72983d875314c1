"""From options to a plan: which tokens, layers, heads, neurons and weights stay, and what that makes of every file."""
