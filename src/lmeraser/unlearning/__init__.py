"""The verbs: train, unlearn, plan, audit, relabel, residue."""
