"""The commands of the trainer, a file each. Only here anything is printed."""
