"""The 28 tests of the ML Test Score, read from the ledger, and the drills that prove monitors."""
