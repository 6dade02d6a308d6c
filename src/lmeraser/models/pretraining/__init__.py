"""Pre-training of backbones on public images."""
