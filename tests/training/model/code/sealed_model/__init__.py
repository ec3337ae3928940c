"""What the model owner seals: a logistic regression on the Wisconsin breast cancer data."""
