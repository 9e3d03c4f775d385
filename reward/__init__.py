"""What training and evaluating a reward model share."""
