"""Parts of a model: backbones, partitions and tuners, and the manifest that lists them."""
