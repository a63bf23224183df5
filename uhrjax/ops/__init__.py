"""Pure array functions without weights."""
