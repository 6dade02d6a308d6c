"""What a model is made of: backbones, partitions, tuners, and the manifest that names them."""
