"""Virtual network cards: the family of backend/vif."""
