"""Faults injected into real brokers, agents and stores, with a judge, and broken programs that the judge must catch."""
