"""What an auditor checks: signatures, the ledger, certificates."""
