"""What a backbone is used for. A task that is fine-tuned to is a folder; `train.tasks.finetune` knows them all."""
