"""Where the expensive stages run: in this process (`local`), or on workers (`pool`); `provider` chooses."""
