"""Training and evaluation: tasks, input, optimizer, the one trainer."""
