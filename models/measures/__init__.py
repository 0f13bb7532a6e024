"""Measures: what says how good a model is, exact on rows that lie here, or of sums and counts that devices add up."""
