"""What every room uses: messages, files, journals, progress, processes, checkpoints."""
