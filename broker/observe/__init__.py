"""What people and machines see of a running broker: metrics, health, logs."""
