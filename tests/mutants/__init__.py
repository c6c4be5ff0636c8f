"""One-line mutants of the product, and whether the tests that ought to notice do."""
