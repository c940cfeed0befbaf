"""What operators see: log lines without secrets, and metrics of all workers."""
