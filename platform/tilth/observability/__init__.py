"""What a person is shown or told: lag, usage, cost, failures."""
