"""What people see and are notified of: lag, usage, cost, failures."""
