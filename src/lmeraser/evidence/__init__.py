"""Evidence for auditors: signatures, the ledger and certificates."""
