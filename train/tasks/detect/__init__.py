"""Object detection: VoteNet on a pre-trained backbone."""
