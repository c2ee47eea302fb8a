"""Ways of pre-training, a folder each: settings, batches and model. `train.methods.pretrain` knows them all."""
