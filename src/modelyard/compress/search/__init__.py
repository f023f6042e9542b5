"""Search over plans: what each costs and keeps on the real target, and the front that remains."""
